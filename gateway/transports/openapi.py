"""Describes the HTTP API for programs: OpenAPI 3.1, at ``/openapi.json``.

The schemas are derived from the types that are sent, so the two can't differ; what no type says
about a path is here.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Union

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.questions import MOST_SESSIONS
from gateway.admin.views import Overview, Replicas, Routes, SessionDetail, SessionPage
from gateway.protocol.messages import ErrorMessage, Event, MessageDuplicate
from gateway.transports.admin import MOST_CHARACTERS, STATES, USUAL_SESSIONS
from gateway.transports.api import Opened, SessionState
from gateway.transports.drafts import OPTION_HEADERS, REPLY_HEADERS
from gateway.transports.problems import MEDIA_TYPE, Problem
from gateway.transports.sse import MEDIA_TYPE as EVENTS
from gateway.transports.tickets import Ticket
from gateway.transports.told import NewSession

Json = dict[str, Any]

_ADMIN = (Overview, Replicas, Routes, SessionDetail, SessionPage)

_TITLES = {
    401: "The key or token is missing, or not valid.",
    403: "The client, or the page's origin, may not do this.",
    404: "The session, for this client and key, or the route does not exist.",
    409: "The message was sent before and its reply is no longer kept, or it was cancelled.",
    413: "The body is too large.",
    422: "The request is not valid, or the model does not take this body.",
    429: "A limit was exceeded.",
    500: "The gateway failed.",
    502: "The model failed.",
    503: "Unavailable at the moment.",
    504: "The model did not answer in time.",
}

_KEY = {
    "name": "Session-Key",
    "in": "header",
    "required": True,
    "description": "The session's `resume_key`.",
    "schema": {"type": "string"},
}
_SESSION = {
    "name": "session_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
}
_OF_SESSION = [_SESSION, _KEY]


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _event(name: str, **more: Json) -> Json:
    """Return the schema of a server-sent event."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": _ref(name),
    }
    return {"type": "object", "required": ["data"], "properties": {**more, "data": data}}


_EVENT = _event("ServerMessage", id={"type": "string", "description": "The number of the event."})


def _header(name: str, description: str, **schema: Any) -> Json:
    schema = {"type": "string", **schema}
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _body(media_type: str, schema: Json) -> Json:
    return {"content": {media_type: {"schema": schema}}}


def _answers(done: Mapping[str, Json], problems: Sequence[int]) -> Json:
    """Return the responses of an operation.

    Args:
        done: Its responses on success.
        problems: Statuses of its problems.
    """
    answers: Json = {**done}
    for status in sorted({401, 403, 500, *problems}):
        answer = {"description": _TITLES[status], **_body(MEDIA_TYPE, _ref("Problem"))}
        if status in {429, 503}:
            text = "Seconds to wait before trying again, if known."
            answer["headers"] = {"Retry-After": {"description": text, "schema": _SECONDS}}
        answers[str(status)] = answer
    return answers


_SECONDS = {"type": "integer", "minimum": 0}


def _links() -> Json:
    """Return the links from the response that opens a session to the session's operations."""
    parameters = {
        "session_id": "$response.body#/session_id",
        "header.Session-Key": "$response.body#/resume_key",
    }
    operations = ("sendMessage", "getSession", "streamEvents", "closeSession")
    return {each: {"operationId": each, "parameters": parameters} for each in operations}


def _open(routes: Sequence[str]) -> Json:
    return {
        "operationId": "openSession",
        "summary": "Open a session",
        "parameters": [
            {"name": "route", "in": "path", "required": True, "schema": {"enum": [*routes]}}
        ],
        "requestBody": {
            "description": "An earlier conversation to start from, on routes that support it.",
            **_body("application/json", _ref("NewSession")),
        },
        "responses": _answers(
            {
                "201": {
                    "description": "The session is open.",
                    **_body("application/json", _ref("Opened")),
                    "headers": {"Location": {"schema": {"type": "string"}}},
                    "links": _links(),
                }
            },
            [404, 413, 422, 429, 502, 503, 504],
        ),
    }


def _send() -> Json:
    """Describe sending a message. Any content type is allowed, since the body is the model's."""
    return {
        "operationId": "sendMessage",
        "summary": "Send a message to the model, and get its reply",
        "parameters": [
            _header(
                "Idempotency-Key",
                "The message's id. A message that is sent again with the same id does not reach "
                "the model again, and gets the same reply.",
                minLength=1,
                maxLength=64,
                pattern=r"^[!-~]+$",
            ),
            *(
                _header(
                    name,
                    f"`{option}` of the model's call, if the route lets clients set it.",
                    minLength=1,
                    maxLength=1024,
                    pattern=r"^[ -~]+$",
                )
                for name, option in OPTION_HEADERS.items()
            ),
        ],
        "requestBody": {
            "description": "Goes to the model unchanged; `text/plain` is the user's text, if the "
            "route builds the model's request from it.",
            "content": {"*/*": {}},
        },
        "responses": _answers(
            {
                "200": {
                    "description": "The model's reply, unchanged; with `Accept: text/event-stream` "
                    "the protocol's messages about this turn, from `message.accepted` to "
                    "`message.done`.",
                    "headers": {
                        "Idempotency-Key": {
                            "description": "The message's id.",
                            "schema": {"type": "string"},
                        },
                        **{name: {"schema": {"type": "string"}} for name in REPLY_HEADERS},
                    },
                    "content": {"*/*": {}, EVENTS: {"schema": _EVENT}},
                }
            },
            [404, 409, 413, 422, 429, 502, 503, 504],
        ),
    }


def _events() -> Json:
    return {
        "operationId": "streamEvents",
        "summary": "Stream a session's events",
        "parameters": [
            _header(
                "Last-Event-ID",
                "The newest event that the client has; from the oldest that is kept by default.",
                pattern="^[0-9]{1,15}$",
            )
        ],
        "responses": _answers(
            {
                "200": {
                    "description": "The session's events, until it ends.",
                    **_body(EVENTS, _EVENT),
                }
            },
            [404, 422, 429, 503],
        ),
    }


def _state() -> Json:
    return {
        "operationId": "getSession",
        "summary": "Get a session's state",
        "responses": _answers(
            {
                "200": {
                    "description": "The session's state.",
                    **_body("application/json", _ref("SessionState")),
                }
            },
            [404, 429, 503],
        ),
    }


def _close() -> Json:
    return {
        "operationId": "closeSession",
        "summary": "Close a session, at the model too",
        "responses": _answers({"204": {"description": "The session is closed."}}, [404, 429, 503]),
    }


def _ticket() -> Json:
    return {
        "operationId": "createTicket",
        "summary": "Get a ticket, with which a browser can connect once",
        "responses": _answers(
            {
                "201": {
                    "description": "The ticket.",
                    **_body("application/json", _ref("Ticket")),
                }
            },
            [429, 503],
        ),
    }


def _shown(operation: str, summary: str, name: str, problems: Sequence[int], **more: Any) -> Json:
    """Describe an operation that returns state to an operator."""
    done = {"description": "The current state.", **_body("application/json", _ref(name))}
    return {
        "operationId": operation,
        "summary": summary,
        **more,
        "responses": _answers({"200": done}, [429, *problems]),
    }


def _query(name: str, description: str, **schema: Any) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _operators(routes: Sequence[str]) -> Json:
    """Return the paths for operators."""
    text = {"type": "string", "maxLength": MOST_CHARACTERS}
    looked_for = [
        _query("prefix", "Sessions whose id begins with this.", **text),
        _query("route", "Sessions of this route.", enum=[*routes]),
        _query("principal", "Sessions whose principal contains this.", **text),
        _query("state", "Sessions in this state.", enum=[*STATES]),
        _query("after", "The `next` of the previous page.", **text),
        _query(
            "limit",
            f"Sessions per page; {USUAL_SESSIONS} by default.",
            type="integer",
            minimum=1,
            maximum=MOST_SESSIONS,
        ),
    ]
    replica = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/admin/sessions": {
            "get": _shown(
                "listSessions",
                "List all sessions, ordered by id",
                "SessionPage",
                [422],
                parameters=looked_for,
            )
        },
        "/v1/admin/sessions/{session_id}": {
            "parameters": [_SESSION],
            "get": _shown(
                "inspectSession",
                "Inspect any session, except what was said in it",
                "SessionDetail",
                [404, 503],
            ),
            "delete": {
                "operationId": "evictSession",
                "summary": "Close any session, at the model too",
                "responses": _answers(
                    {"204": {"description": "The session is being closed."}}, [404, 429, 503]
                ),
            },
        },
        "/v1/admin/replicas": {
            "get": _shown("listReplicas", "List all replicas", "Replicas", []),
        },
        "/v1/admin/replicas/{name}/drain": {
            "parameters": [replica],
            "post": {
                "operationId": "drainReplica",
                "summary": "Drain a replica and stop it",
                "responses": _answers(
                    {"202": {"description": "The replica is draining."}}, [404, 422, 429, 503]
                ),
            },
        },
        "/v1/admin/routes": {"get": _shown("listRoutes", "List all routes", "Routes", [])},
        "/v1/admin/events": {
            "get": {
                "operationId": "watch",
                "summary": "Stream the current state every second",
                "responses": _answers(
                    {
                        "200": {
                            "description": "An event every second, until the replica has drained.",
                            **_body(EVENTS, _event("Overview")),
                        }
                    },
                    [429],
                ),
            }
        },
    }


def document(routes: Sequence[str], *, authenticated: bool) -> Json:
    """Return the OpenAPI document.

    Args:
        routes: Names of the routes.
        authenticated: Whether clients have to authenticate.
    """
    said = Union[Event, MessageDuplicate, ErrorMessage]  # noqa: UP007 - its members are unions
    (message, *_), schemas = msgspec.json.schema_components(
        (said, NewSession, Opened, SessionState, Ticket, Problem, *_ADMIN),
        ref_template="#/components/schemas/{name}",
    )
    for schema in schemas.values():  # a schema's description is its docstring's first paragraph
        if "description" in schema:
            text = schema["description"].partition("\n\n")[0]
            schema["description"] = " ".join(text.split()).replace("``", "`")
    about: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "session-gateway",
            "version": version("session-gateway"),
            "summary": "Sessions with stateful models on Amazon SageMaker.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/routes/{route}/sessions": {"post": _open(routes)},
            "/v1/sessions/{session_id}": {
                "parameters": _OF_SESSION,
                "get": _state(),
                "delete": _close(),
            },
            "/v1/sessions/{session_id}/messages": {"parameters": _OF_SESSION, "post": _send()},
            "/v1/sessions/{session_id}/events": {"parameters": _OF_SESSION, "get": _events()},
            **_operators(routes),
        },
        "components": {"schemas": {"ServerMessage": message, **schemas}},
    }
    if authenticated:
        about["paths"]["/v1/tickets"] = {"post": _ticket()}
        scheme = {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT."}
        about["components"]["securitySchemes"] = {"bearer": scheme}
        about["security"] = [{"bearer": []}]
    return about


class Document:
    """Serves the document.

    Args:
        routes: See `document`.
        authenticated: See `document`.
    """

    def __init__(self, routes: Sequence[str], *, authenticated: bool) -> None:
        self._document = document(routes, authenticated=authenticated)

    async def serve(self, request: Request) -> Response:
        """Serve the document, with the server's URL as its root path."""
        there = {"servers": [{"url": request.scope.get("root_path", "") or "/"}]}
        return Response(
            msgspec.json.encode({**self._document, **there}),
            media_type="application/json",
            headers={"Access-Control-Allow-Origin": "*"},
        )
