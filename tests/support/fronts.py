"""Real proxies in front of a gateway, set up by the files in ``deploy``.

Only names, ports and paths are other than there.
"""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType

from tests.support.timing import UNIT

DEPLOY = Path(__file__).parents[2] / "deploy"
CERTIFICATE = Path(__file__).parents[1] / "contract" / "localhost.pem"
HOST = "chat.example.com"
USER, PASSWORD = "ada", "a password"
BCRYPT = "$2b$04$PmnqCljomQHikQz4S2VUBusfo3teoXBzsmjqIjlIdoIg3ngXsnEn."

NONE: Mapping[str, str] = MappingProxyType({})

NGINX = """
daemon off;
master_process off;  # which would run its workers as another user
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include site.conf;
}}
"""

CADDY = """
{
	admin off
	auto_https off
	default_bind 127.0.0.1
}
"""


class Front:
    """A proxy that runs.

    Attributes:
        port: Where it listens.
        scheme: Of its pages.
    """

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.scheme = scheme

    @property
    def origin(self) -> str:
        """Of its pages."""
        return f"{self.scheme}://{HOST}:{self.port}"


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def changed(text: str, changes: Mapping[str, str]) -> str:
    """A text with other things in the place of what is there."""
    for there, instead in changes.items():
        assert there in text, there
        text = text.replace(there, instead)
    return text


@contextmanager
def nginx(
    folder: Path, gateway: str, port: int, changes: Mapping[str, str] = NONE
) -> Iterator[Front]:
    """nginx with ``deploy/nginx.conf``.

    Args:
        folder: Of its own.
        gateway: The host and port of what it is in front of.
        port: To listen on.
        changes: Of its configuration.
    """
    front = Front(port, "https")
    site = changed(
        (DEPLOY / "nginx.conf").read_text(),
        {
            "127.0.0.1:8080": gateway,
            "listen 443": f"listen 127.0.0.1:{front.port}",
            "/etc/ssl/chat.example.com.pem": str(CERTIFICATE),
            "/etc/ssl/chat.example.com.key": str(CERTIFICATE),
            "/etc/nginx/session-gateway.htpasswd": str(folder / "htpasswd"),
            **changes,
        },
    )
    (folder / "site.conf").write_text(site)
    (folder / "htpasswd").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with running(command, front):
        yield front


@contextmanager
def caddy(folder: Path, gateway: str, port: int) -> Iterator[Front]:
    """Caddy with ``deploy/Caddyfile``, but without TLS; as above."""
    front = Front(port, "http")
    site = changed(
        (DEPLOY / "Caddyfile").read_text(),
        {"127.0.0.1:8080": gateway, f"\n{HOST} {{": f"\n{front.origin} {{"},
    )
    file = folder / "Caddyfile"
    file.write_text(CADDY + site)
    command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    with running(command, front, HOME=str(folder), PASSWORD_HASH=BCRYPT):
        yield front


@contextmanager
def running(command: list[str], front: Front, **variables: str) -> Iterator[None]:
    """A program, from when it listens on."""
    process = subprocess.Popen(
        command,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until = monotonic() + 30 * UNIT
        while not listens(front.port):
            if process.poll() is not None or monotonic() > until:
                process.kill()
                raise AssertionError(f"{command} did not start:\n{process.communicate()[0]}")
            sleep(0.02)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30 * UNIT)


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
