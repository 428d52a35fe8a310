"""The project's own Python client, as a program uses it; the witness looks on beneath it."""

import asyncio
from collections.abc import Iterator
from typing import Any

from gateway.client import (
    ConnectionFailed,
    MessageFailed,
    SessionClient,
    SessionClosed,
    SessionError,
    Turn,
    connect,
)
from tests.chaos import texts
from tests.chaos.habits import Talker
from tests.chaos.plain import OPEN_SECONDS

EXPECTED = {"gateway_lost", "unavailable", "queue_full", "session_lost"}
"""What messages may fail with here."""


class Own(Talker):
    """One client; see `Talker`.

    Args:
        msgpack: Whether it speaks that.
    """

    def __init__(self, *args: Any, msgpack: bool) -> None:
        super().__init__(*args)
        self._msgpack = msgpack

    def _delays(self) -> Iterator[float]:
        while True:
            yield self._habits.chance.uniform(0.02, 0.4)

    async def run(self) -> None:
        """Talk until it is to stop."""
        while not self._ending:
            try:
                async with connect(
                    self._url,
                    codec="msgpack" if self._msgpack else "json",
                    open_timeout=OPEN_SECONDS,
                    delays=self._delays,
                    create_connection=self._make,
                    proxy=None,
                ) as session:
                    if await self._talk(session):
                        await session.detach()
            except ConnectionFailed as error:
                self._witness.note(f"--- no session: {error}")
                if error.__cause__ is not None:
                    self._witness.fault(f"the client gives up: {error.__cause__!r}")
                await asyncio.sleep(self._habits.chance.uniform(0.1, 0.5))
            except SessionClosed as error:
                self._ended(error)
            self._witness.leave()

    def _ended(self, error: SessionClosed) -> None:
        self._witness.note(f"--- session closed: {error}")
        cause = error.__cause__
        if cause is not None or error.code not in {None, 1012, 4409, 4410}:
            self._witness.fault(f"the client gives up: {error} {error.code} {cause!r}")

    async def _talk(self, session: SessionClient) -> bool:
        """Have a session's turns; returns whether to leave it as it is."""
        habits = self._habits
        left = habits.length()
        async with asyncio.TaskGroup() as tasks:
            while left and not self._ending:
                for _ in range(min(left, habits.burst())):
                    left -= 1
                    self._number += 1
                    text, streams = habits.turn(self._number)
                    try:
                        turn = session.send(text, id=f"m{self._number}", stream=streams)
                    except SessionClosed as error:
                        self._ended(error)
                        return False
                    tasks.create_task(self._take(turn, text))
                    after = habits.cancels()
                    if after is not None:
                        tasks.create_task(self._cancel(turn, after))
                await asyncio.sleep(habits.pause())
        return not self._ending and habits.leaves()

    async def _cancel(self, turn: Turn, after: float) -> None:
        await asyncio.sleep(after)
        await turn.cancel()

    async def _take(self, turn: Turn, text: str) -> None:
        said: list[str] = []
        whole = "".join(texts.parts(text))
        try:
            async for part in turn:
                assert isinstance(part, str)
                said.append(part)
            reply = await turn
        except MessageFailed as error:
            if error.code not in EXPECTED:
                self._witness.fault(f"{turn.id} raises {error!r} {error.code}")
            return
        except SessionError as error:
            self._witness.fault(f"{turn.id} raises {error!r}")
            return
        if reply.complete and (reply.text != whole or "".join(said) != whole):
            self._witness.fault(f"{turn.id}: the client's reply is {reply.text!r}")
        if reply.status == "completed" and not reply.complete and not self._witness.lost:
            self._witness.fault(f"{turn.id}: the client's reply is not complete")
