"""The Python client, asynchronous or not, as a program that does what its input's lines say.

Each line is a request, and is answered by a line with its number: see `tests.client.driven`.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from gateway.client import (
    ConnectionFailed,
    MessageFailed,
    Notice,
    Opened,
    Renewed,
    Reply,
    Resumed,
    SessionClient,
    Turn,
    connect,
    sync,
)


def body_of(text: str | None, data: str | None, json: object) -> Any:
    """A message, as the client takes it."""
    if text is not None:
        return text
    return json if data is None else base64.b64decode(data)


def encoded(parts: Iterable[str | bytes]) -> list[str]:
    """Parts of a reply in Base64."""
    raw = (part.encode() if isinstance(part, str) else part for part in parts)
    return [base64.b64encode(part).decode() for part in raw]


def ending(end: Reply | MessageFailed) -> dict[str, Any]:
    """The end of a turn."""
    if isinstance(end, MessageFailed):
        return {"status": "failed", "code": end.code, "outcome": end.outcome}
    (body,) = encoded([end.bytes])
    told = {"body": body, "deltas": end.deltas, "content_type": end.content_type}
    return {"status": end.status, "outcome": end.outcome, **told}


def word(notice: Notice) -> list[str]:
    """What a notice says, in the words that all clients have."""
    match notice:
        case Opened():
            return ["opened" if notice.replaces is None else "replaced"]
        case Resumed():
            return ["resumed"]
        case Renewed():
            return [f"renewed {notice.context}"]
        case _:
            return []


class Asynchronous:
    """What can be asked of a session of the asynchronous client."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self._stack = AsyncExitStack()
        self._turns: dict[str, Turn] = {}
        self._notices: list[Notice] = []

    async def open(self, url: str, token: str | None, saved: str | None) -> None:
        context = connect(
            url, token=token, resume=saved, codec=self._codec, on_notice=self._notices.append
        )
        self._session: SessionClient = await self._stack.enter_async_context(context)
        self._turns.update(self._session.resumed)

    async def send(self, id: str, **body: Any) -> None:  # noqa: A002 - the protocol's name
        options = body.pop("options")
        self._turns[id] = self._session.send(body_of(**body), id=id, **options)

    async def parts(self, id: str, count: int) -> list[str]:  # noqa: A002
        parts = aiter(self._turns[id])
        return encoded([await anext(parts) for _ in range(count)])

    async def end(self, id: str) -> dict[str, Any]:  # noqa: A002
        try:
            return ending(await self._turns[id])
        except MessageFailed as failed:
            return ending(failed)

    async def cancel(self, id: str) -> None:  # noqa: A002
        await self._turns[id].cancel()

    async def notices(self) -> list[str]:
        return [each for notice in self._notices for each in word(notice)]

    async def leave(self) -> str:
        return await self._session.detach()

    async def close(self) -> None:
        await self._stack.aclose()


class Synchronous:
    """What can be asked of a session of the synchronous client."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._turns: dict[str, sync.Turn] = {}
        self._notices: list[Notice] = []

    def open(self, url: str, token: str | None, saved: str | None) -> None:
        context = sync.connect(url, token=token, resume=saved, on_notice=self._notices.append)
        self._session = self._stack.enter_context(context)
        self._turns.update(self._session.resumed)

    def send(self, id: str, **body: Any) -> None:  # noqa: A002
        options = body.pop("options")
        self._turns[id] = self._session.send(body_of(**body), id=id, **options)

    def parts(self, id: str, count: int) -> list[str]:  # noqa: A002
        parts = iter(self._turns[id])
        return encoded([next(parts) for _ in range(count)])

    def end(self, id: str) -> dict[str, Any]:  # noqa: A002
        try:
            return ending(self._turns[id].result())
        except MessageFailed as failed:
            return ending(failed)

    def cancel(self, id: str) -> None:  # noqa: A002
        self._turns[id].cancel()

    def notices(self) -> list[str]:
        return [each for notice in self._notices for each in word(notice)]

    def leave(self) -> str:
        return self._session.detach()

    def close(self) -> None:
        self._stack.close()


def made(kind: str) -> Callable[[str], Callable[..., Awaitable[Any]]]:
    """A session of that kind, as what answers requests by their names."""
    if kind != "sync":
        session = Asynchronous(kind)
        return lambda name: getattr(session, name)
    waiting = Synchronous()

    def request(name: str) -> Callable[..., Awaitable[Any]]:
        return lambda **given: asyncio.to_thread(getattr(waiting, name), **given)

    return request


async def main(kind: str) -> None:
    """Answer requests, several at once, until there are no more."""
    sessions: dict[str, Callable[[str], Callable[..., Awaitable[Any]]]] = {}

    async def answer(number: int, session: str, do: str, **given: Any) -> None:
        if session not in sessions:
            sessions[session] = made(kind)
        try:
            result = {"result": await sessions[session](do)(**given)}
        except ConnectionFailed as failed:
            result = {"refused": failed.code}
        sys.stdout.write(f"{json.dumps({'number': number, **result})}\n")
        sys.stdout.flush()

    async with asyncio.TaskGroup() as tasks:
        while line := await asyncio.to_thread(sys.stdin.readline):
            tasks.create_task(answer(**json.loads(line)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
