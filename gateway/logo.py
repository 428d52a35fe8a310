"""The logo that the pages show, which is reloaded while the gateway runs."""

import re
from hashlib import sha256
from pathlib import Path

MAX_BYTES = 262_144
"""Maximum size of a logo: it is kept in memory, and delays each page."""

_PNG = b"\x89PNG\r\n\x1a\n"
_SVG = re.compile(
    rb"(\xef\xbb\xbf)?\s*(?>(<(\?xml|!DOCTYPE)[^>]*>|<!--.*?-->)\s*)*<svg[\s>/]", re.DOTALL
)


class LogoError(Exception):
    """A logo can't be used; the message names the file, the reason, and what to do."""


class Logo:
    """A logo.

    Args:
        file: Path of the image.

    Attributes:
        content: Content of the file.
        media_type: Its media type.
        tag: Its entity tag.

    Raises:
        LogoError: It can't be used.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content = b""
        self.media_type = self.tag = ""
        self.reload()

    def reload(self) -> None:
        """Read the file again; on an error, the previous logo stays in use.

        Raises:
            LogoError: It can't be used.
        """
        try:
            with self.file.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            why = error.strerror or str(error)
            raise LogoError(f"{self.file}: {why}; name an SVG or a PNG file here") from None
        if len(content) > MAX_BYTES:
            raise LogoError(f"{self.file}: larger than {MAX_BYTES} bytes; make it smaller")
        if content.startswith(_PNG):
            media_type = "image/png"
        elif _SVG.match(content):
            media_type = "image/svg+xml"
        else:
            raise LogoError(f"{self.file}: neither an SVG nor a PNG; convert it to one of them")
        self.content, self.media_type = content, media_type
        self.tag = f'"{sha256(content).hexdigest()[:32]}"'
