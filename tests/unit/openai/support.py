"""What tests of OpenAI's API share."""

import json
from typing import Any

from starlette.responses import Response


def body_of(response: Response) -> Any:
    """A response's JSON."""
    return json.loads(bytes(response.body))
