"""The gateway that anyone would write first: forty lines of Starlette around aiobotocore's call.

It is here to be compared with. It opens a session for each connection and passes frames to the
model and back; of everything else that a gateway has to do it does nothing.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from aiobotocore.session import get_session
from botocore.config import Config
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One client for all connections."""
    session: Any = get_session()
    # The pool's default of ten would leave most calls waiting.
    config = Config(max_pool_connections=1000)
    url = os.environ["UPSTREAM"]
    async with session.create_client(
        "sagemaker-runtime", region_name="us-east-1", endpoint_url=url, config=config
    ) as client:
        app.state.client = client
        yield


async def serve(websocket: WebSocket) -> None:
    """Serve one connection."""
    client = websocket.app.state.client
    call = {"EndpointName": os.environ["ENDPOINT"], "ContentType": "application/json"}
    await websocket.accept()
    opening = b'{"requestType": "NEW_SESSION"}'
    opened = await client.invoke_endpoint(**call, SessionId="NEW_SESSION", Body=opening)
    session_id = opened["NewSessionId"].split(";")[0]
    try:
        while True:
            text = await websocket.receive_text()
            reply = await client.invoke_endpoint(**call, SessionId=session_id, Body=text.encode())
            await websocket.send_text((await reply["Body"].read()).decode())
    except WebSocketDisconnect:
        closing = b'{"requestType": "CLOSE"}'
        await client.invoke_endpoint(**call, SessionId=session_id, Body=closing)


app = Starlette(routes=[WebSocketRoute("/ws", serve)], lifespan=lifespan)

if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
        uvicorn.run(app, fd=listener.fileno(), log_level="warning")
