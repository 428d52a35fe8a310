"""Run an application as a process that says where it listens, as `processes.Process` reads it."""

import socket

import uvicorn
from fastapi import FastAPI


def listen(app: FastAPI, port: int) -> None:
    """Serve on a loopback port until a signal comes; 0 takes a free one."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
