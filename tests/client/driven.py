"""Clients in programs of their own, which are told by lines what to do.

A request is ``{"number", "session", "do", …}``, and its answer ``{"number", "result"}``, or
``{"number", "refused"}`` with a close code where no session is to be had. Bodies are in Base64.
"""

import asyncio
import base64
import itertools
import json
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tests.support.timing import UNIT

ROOT = Path(__file__).parents[2]


class Refused(Exception):
    """No session is to be had.

    Attributes:
        code: The close code.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class Program:
    """A client's program, which may have many sessions."""

    def __init__(self, command: Sequence[str], cwd: Path = ROOT) -> None:
        self._popen = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._numbers = itertools.count()
        self._asked: dict[int, Future[Any]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            answer = json.loads(line)
            future = self._asked.pop(answer["number"])
            if "refused" in answer:
                future.set_exception(Refused(answer["refused"]))
            else:
                future.set_result(answer["result"])
        for future in self._asked.values():
            future.set_exception(AssertionError("the client has ended"))

    async def ask(self, session: str, do: str, **given: Any) -> Any:
        """Have it do that, and wait for what it answers."""
        number = next(self._numbers)
        future = self._asked[number] = Future[Any]()
        assert self._popen.stdin is not None
        request = {"number": number, "session": session, "do": do, **given}
        self._popen.stdin.write(f"{json.dumps(request)}\n")
        self._popen.stdin.flush()
        async with asyncio.timeout(20 * UNIT):
            return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """End it; it must have nothing to complain of."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        try:
            assert self._popen.wait(5 * UNIT) == 0
        finally:
            self._popen.kill()
            self._reader.join()
            self._popen.stdout.close()


class End:
    """How a turn has ended.

    Attributes:
        status: ``completed``, ``cancelled`` or ``failed``.
        body: The reply.
        deltas: In how many parts it came.
        code: What went wrong.
        outcome: Whether the model saw the message, where that is in question.
        content_type: Of the reply.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.status: str = told["status"]
        self.body = base64.b64decode(told.get("body", ""))
        self.deltas: int = told.get("deltas", 0)
        self.code: str | None = told.get("code")
        self.outcome: str | None = told.get("outcome")
        self.content_type: str | None = told.get("content_type")

    @property
    def text(self) -> str:
        return self.body.decode()


class Session:
    """A session of a program's."""

    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name
        self._ids = (f"{name}-{number}" for number in itertools.count())

    async def _ask(self, do: str, **given: Any) -> Any:
        return await self._program.ask(self._name, do, **given)

    async def open(self, url: str, token: str | None = None, saved: str | None = None) -> None:
        """Open it, or go on with what `leave` has given.

        Raises:
            Refused: That is not to be had.
        """
        await self._ask("open", url=url, token=token, saved=saved)

    async def send(self, body: str | bytes | dict[str, Any], **options: Any) -> str:
        """Send a message; its id."""
        name = next(self._ids)
        text, data, json = None, None, None
        match body:
            case str():
                text = body
            case bytes():
                data = base64.b64encode(body).decode()
            case _:
                json = body
        await self._ask("send", id=name, text=text, data=data, json=json, options=options)
        return name

    async def parts(self, name: str, count: int) -> list[bytes]:
        """Wait for so many parts of a reply."""
        parts = await self._ask("parts", id=name, count=count)
        return [base64.b64decode(part) for part in parts]

    async def end(self, name: str) -> End:
        """Wait for the end of a turn."""
        return End(await self._ask("end", id=name))

    async def say(self, body: str | bytes | dict[str, Any], **options: Any) -> End:
        """Send a message and wait for the end of its turn."""
        return await self.end(await self.send(body, **options))

    async def cancel(self, name: str) -> None:
        """Ask for a turn to be stopped, and wait until it has ended."""
        await self._ask("cancel", id=name)

    async def notices(self) -> list[str]:
        """What has happened to the session."""
        notices: list[str] = await self._ask("notices")
        return notices

    async def leave(self) -> str:
        """Leave it as it is; what another program goes on with it by."""
        saved: str = await self._ask("leave")
        return saved

    async def close(self) -> None:
        """Close it."""
        await self._ask("close")
