"""A stateful container as vLLM's SageMaker image is one: AWS's own session code, run by uvicorn.

``python -m tests.support.container [PORT]`` says where it listens. Every session counts its turns
in its own storage, and keeps what it is told: ``{"say": …}`` is answered with all that was said to
the session. ``{"parts": N, "bytes": M}`` streams so many parts of so many bytes. The log tells of
sessions that are opened and closed.
"""

import logging
import sys
from collections.abc import AsyncIterator

import model_hosting_container_standards.sagemaker as standards
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from model_hosting_container_standards.sagemaker.sessions.manager import get_session_manager

from tests.support.listening import listen

logging.basicConfig(level=logging.INFO)
app = FastAPI()


@app.post("/invocations")
@standards.stateful_session_manager()  # type: ignore[untyped-decorator]
async def invocations(raw_request: Request) -> Response:
    """Count this session's turns; what has no session is answered all the same."""
    asked = await raw_request.json()
    if "parts" in asked:
        return StreamingResponse(parts(asked["parts"], asked["bytes"]), media_type="text/plain")
    manager = get_session_manager()
    session_id = raw_request.headers.get("X-Amzn-SageMaker-Session-Id", "")
    session = manager.sessions.get(session_id) if manager else None
    if session is None:
        return JSONResponse({"turn": None})
    turn = (session.get("turn") or 0) + 1
    session.put("turn", turn)
    if "say" not in asked:
        return JSONResponse({"turn": turn})
    said = [*(session.get("said") or []), asked["say"]]
    session.put("said", said)
    return JSONResponse({"turn": turn, "said": said})


async def parts(count: int, size: int) -> AsyncIterator[bytes]:
    """Parts that begin with their number."""
    for number in range(count):
        yield f"{number} ".ljust(size, "x").encode()


if __name__ == "__main__":
    listen(app, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
