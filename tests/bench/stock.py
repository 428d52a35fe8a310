"""This gateway as an ASGI application of stock uvicorn's, as somebody embeds it."""

import socket
import sys

import uvicorn

from gateway import Settings, create_app

if __name__ == "__main__":
    app = create_app(Settings.load(sys.argv[1]))
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
        # Not by its descriptor, which uvicorn takes for a socket without TCP_NODELAY.
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])
