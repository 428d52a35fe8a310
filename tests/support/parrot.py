"""An endpoint that answers as it is told, and in whatever goes wrong repeats all that it got.

It stands for containers that quote their users in their errors, and for what may answer in AWS's
place, such as a proxy. It takes every signature.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable

from gateway.local import eventstream
from tests.support.secrets import register

SESSION = register(secrets.token_hex(16), "the platform's session id")

Answer = Callable[[str, bytes], bytes]
"""Makes a response of a request's head and body."""


def response(status: int, body: bytes, **headers: str) -> bytes:
    """A response; ``_`` in the name of a header is a hyphen."""
    given = {"Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body


def good(_head: str, body: bytes) -> bytes:
    """The body, and its words in each header that a container may set."""
    return response(
        200,
        body,
        Content_Type="text/plain",
        X_Amzn_SageMaker_Custom_Attributes=body.decode(errors="replace"),
        X_Amzn_SageMaker_New_Session_Id=SESSION,
    )


def malformed(_head: str, body: bytes) -> bytes:
    """A reply with a session whose id is none."""
    words = body.decode(errors="replace")
    return response(200, body, X_Amzn_SageMaker_New_Session_Id=f"{words}; {words}")


def model_error(_head: str, body: bytes) -> bytes:
    """The container's error."""
    said = body.decode(errors="replace")
    details = {"Message": said, "OriginalMessage": said, "OriginalStatusCode": 400}
    return response(424, json.dumps(details).encode(), X_Amzn_ErrorType="ModelError")


def invalid(head: str, _body: bytes) -> bytes:
    """AWS's own error, which quotes what it does not take."""
    lines = [line for line in head.splitlines() if "custom-attributes" in line.lower()]
    text = f"1 validation error detected: Value '{lines}' at 'customAttributes' is too odd"
    return response(400, json.dumps({"Message": text}).encode(), X_Amzn_ErrorType="ValidationError")


def unsigned(head: str, _body: bytes) -> bytes:
    """AWS's own error, which quotes all that was signed."""
    text = f"The request signature we calculated does not match.\n\nThe canonical string: {head}"
    kind = "InvalidSignatureException"
    return response(403, json.dumps({"message": text}).encode(), X_Amzn_ErrorType=kind)


def other(head: str, body: bytes) -> bytes:
    """What is not AWS at all."""
    said = head + body.decode(errors="replace")
    return response(502, json.dumps({"code": said, "message": said}).encode())


def page(head: str, body: bytes) -> bytes:
    """The same as a page."""
    return response(503, b"<html>" + head.encode() + body, Content_Type="text/html")


def garbage(head: str, body: bytes) -> bytes:
    """No HTTP."""
    return b"HTTP/1.1 200 OK\r\n" + body + b"\x00\r\n" + head.encode()


def cut(_head: str, body: bytes) -> bytes:
    """A reply that breaks off."""
    return response(200, body, **{"Content-Length": "1000000"})


def stream(head: str, body: bytes, end: bytes | None = None) -> bytes:
    """A streamed reply: the body, and an exception that has it too."""
    said = body.decode(errors="replace")
    details = {"Message": said, "ErrorCode": said}
    failed = eventstream.exception("ModelStreamError", json.dumps(details).encode())
    parts = eventstream.payload_part(body) + (failed if end is None else end)
    words = " ".join(head.split())[:500]
    kind = eventstream.CONTENT_TYPE
    return response(200, parts, Content_Type=kind, X_Amzn_SageMaker_Custom_Attributes=words)


def broken_stream(head: str, body: bytes) -> bytes:
    """A streamed reply that stops to be one."""
    return stream(head, body, end=body * 3)


class Parrot:
    """The endpoint; see this module. Serve it with `tests.support.listener`.

    Attributes:
        answers: What to answer next; `good` where there is nothing more.
        heard: The heads of all requests.
    """

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.heard: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        while not reader.at_eof():
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            sizes = [line for line in head.lower().splitlines() if "content-length" in line]
            body = await reader.readexactly(int(sizes[0].partition(":")[2]))
            self.heard.append(head)
            answer = self.answers.popleft() if self.answers else good
            writer.write(answer(head, body))
            await writer.drain()
            if answer in {garbage, cut}:
                return
