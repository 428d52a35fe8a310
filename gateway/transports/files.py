"""Files of the pages, compressed for who takes that, once for as long as they stay the same.

They are nobody's secret. An answer of the API never comes here: compressed beside what an attacker
has chosen, a secret in it would show by its length (BREACH).
"""

import gzip
import os
import re
import stat
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

SHARED = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
"""Headers of what pages of other origins may load: the modules. What they are is no secret, and
whether such a page may connect is another question."""

_TEXTS = frozenset({".css", ".html", ".js", ".json", ".svg", ".txt"})
"""What gets much smaller; pictures and sounds are compressed by themselves."""

_WEIGHT = re.compile(r"q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


class _Kept(NamedTuple):
    """What is known of a file.

    Attributes:
        stamp: Differs when the file does.
        tag: Stands for its content.
        packed: That, compressed; None where it is not to be.
    """

    stamp: tuple[int, int]
    tag: str
    packed: bytes | None

    def __repr__(self) -> str:
        return f"<_Kept {self.tag}>"


class Files(StaticFiles):
    """Static files: modules are `SHARED`, and texts are compressed where the client takes it.

    What is compressed stays in memory, so that is as much as the files of the directory are. Each
    form of a file has an entity tag of its own. A part of a file (``Range``) is one of the file as
    it is.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory=directory)
        self._kept: dict[str, _Kept] = {}

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """See Starlette, which calls it in a thread of its own: it may read the file."""
        full_path, found = super().lookup_path(path)
        if found is not None and stat.S_ISREG(found.st_mode):
            stamp = found.st_mtime_ns, found.st_size
            kept = self._kept.get(full_path)
            if kept is None or kept.stamp != stamp:
                self._kept[full_path] = _keep(Path(full_path), stamp)
        return full_path, found

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """See Starlette."""
        path, asked = os.fspath(full_path), Headers(scope=scope)
        kept, shared = self._kept[path], SHARED if path.endswith(".js") else {}
        headers = {"ETag": f'"{kept.tag}"', **shared}
        if kept.packed is not None:
            headers["Vary"] = "Accept-Encoding"
        response: Response = FileResponse(
            path, status_code=status_code, headers=headers, stat_result=stat_result
        )
        wanted = ",".join(asked.getlist("accept-encoding"))
        if kept.packed is not None and "range" not in asked and takes_gzip(wanted):
            response.headers["ETag"] = f'"{kept.tag}-gzip"'
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Content-Length"] = str(len(kept.packed))
            del response.headers["Accept-Ranges"]
            body = b"" if scope["method"] == "HEAD" else kept.packed
            response = Response(body, status_code, dict(response.headers))
        if self.is_not_modified(response.headers, asked):
            response = NotModifiedResponse(response.headers)
            response.headers.update(shared)
        return response


def _keep(file: Path, stamp: tuple[int, int]) -> _Kept:
    content = file.read_bytes()
    tag, packed = sha256(content).hexdigest()[:32], None
    if file.suffix in _TEXTS:
        smaller = gzip.compress(content, mtime=0)
        packed = smaller if len(smaller) < len(content) else None
    return _Kept(stamp, tag, packed)


def takes_gzip(accepted: str) -> bool:
    """Whether a client takes gzip, and likes it no less than a body as it is (RFC 9110, 12.5.3).

    Args:
        accepted: What it says in ``Accept-Encoding``; empty where it does not.
    """
    weights = dict[str, float]()
    for coding in accepted.lower().split(","):
        name, _, said = (part.strip() for part in coding.partition(";"))
        weight = _WEIGHT.fullmatch(said or "q=1")
        weights[name] = float(weight[1]) if weight else 0.0
    wanted = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return wanted > 0 and wanted >= weights.get("identity", 0.0)
