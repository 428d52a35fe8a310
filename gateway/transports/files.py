"""Static files, compressed once per version for clients that accept it.

They contain no secrets. Responses of the API must never be compressed: their size could reveal a
secret beside text that an attacker has chosen (BREACH).
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
"""Headers of the JavaScript modules, which pages of other origins may load: their content is
public. Whether such a page may connect is decided by `Origins`."""

_TEXTS = frozenset({".css", ".html", ".js", ".json", ".svg", ".txt"})
"""Types that compress well; images and sounds are already compressed."""

_WEIGHT = re.compile(r"q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


class _Kept(NamedTuple):
    """A cached file.

    Attributes:
        stamp: Changes with the file.
        tag: Digest of its content.
        packed: Its content, compressed; None if that is not worthwhile.
    """

    stamp: tuple[int, int]
    tag: str
    packed: bytes | None

    def __repr__(self) -> str:
        return f"<_Kept {self.tag}>"


class Files(StaticFiles):
    """Static files: modules are `SHARED`, and texts are compressed for clients that accept it.

    Compressed content stays in memory, which is bounded by the size of the directory. Each encoding
    has its own entity tag. ``Range`` requests get parts of the uncompressed file.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory=directory)
        self._kept: dict[str, _Kept] = {}

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """See Starlette, which calls it in a thread, so it may read the file."""
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
    """Return whether a client prefers gzip, or accepts it equally (RFC 9110, 12.5.3).

    Args:
        accepted: Its ``Accept-Encoding``; empty if there is none.
    """
    weights = dict[str, float]()
    for coding in accepted.lower().split(","):
        name, _, said = (part.strip() for part in coding.partition(";"))
        weight = _WEIGHT.fullmatch(said or "q=1")
        weights[name] = float(weight[1]) if weight else 0.0
    wanted = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return wanted > 0 and wanted >= weights.get("identity", 0.0)
