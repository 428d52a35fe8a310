"""A stateful container as vLLM's SageMaker image is one: AWS's own session code, run by uvicorn.

``python -m tests.support.container`` says where it listens. Every session counts its turns in its
own storage; the log tells of sessions that are opened and closed.
"""

import logging
import socket

import model_hosting_container_standards.sagemaker as standards
import uvicorn
from fastapi import FastAPI, Request, Response
from model_hosting_container_standards.sagemaker.sessions.manager import get_session_manager

logging.basicConfig(level=logging.INFO)
app = FastAPI()


@app.post("/invocations")
@standards.stateful_session_manager()  # type: ignore[untyped-decorator]
async def invocations(raw_request: Request) -> Response:
    """Count this session's turns; what has no session is answered all the same."""
    manager = get_session_manager()
    session_id = raw_request.headers.get("X-Amzn-SageMaker-Session-Id", "")
    session = manager.sessions.get(session_id) if manager else None
    if session is None:
        return Response(b'{"turn": null}', media_type="application/json")
    turn = (session.get("turn") or 0) + 1
    session.put("turn", turn)
    return Response(f'{{"turn": {turn}}}', media_type="application/json")


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
