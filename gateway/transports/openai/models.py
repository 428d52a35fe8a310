"""``/openai/v1/models``: lists the routes as models, and handles unknown paths."""

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from gateway.admission import Refused, Visitor
from gateway.sessions import Sessions
from gateway.transports.openai.errors import Invalid, unknown_model
from gateway.transports.openai.gate import OpenAiGate

OWNER = "session-gateway"


class Models:
    """The handlers of models, and of unknown paths.

    Args:
        sessions: Have the routes.
        gate: Wraps the handlers.
    """

    def __init__(self, sessions: Sessions, gate: OpenAiGate) -> None:
        self._routes = sessions.routes
        self._gate = gate
        self._created = int(time.time())

    def routes(self) -> list[BaseRoute]:
        """Return the paths' routes. The last matches all other paths of the API."""
        every = dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), self.unknown)
        return [
            self._gate.path("/openai/v1/models", GET=self.list),
            self._gate.path("/openai/v1/models/{model:path}", GET=self.retrieve),
            self._gate.path("/openai/v1/{path:path}", **every),
        ]

    async def list(self, _request: Request, visitor: Visitor) -> Response:
        """List the models that the client may use."""
        data = [self._model(name) for name in self._routes if _may_use(visitor, name)]
        return JSONResponse({"object": "list", "data": data})

    async def retrieve(self, request: Request, visitor: Visitor) -> Response:
        """Return a model."""
        name = request.path_params["model"]
        if name not in self._routes or not _may_use(visitor, name):
            raise unknown_model(name)
        return JSONResponse(self._model(name))

    async def unknown(self, request: Request, _visitor: Visitor) -> Response:
        """Refuse a path that does not exist."""
        path = request.path_params["path"][:200]
        text = (
            f"{request.method} /openai/v1/{path} does not exist: this gateway serves models, "
            "chat completions, responses and conversations."
        )
        raise Invalid(text, code="unknown_url", status=404)

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": OWNER}


def _may_use(visitor: Visitor, name: str) -> bool:
    try:
        visitor.check_route(name)
    except Refused:
        return False
    return True
