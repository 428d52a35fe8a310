"""Creates the routes of all paths under ``/openai/v1``."""

import time
from collections import Counter

from starlette.routing import BaseRoute, WebSocketRoute

from gateway.admission import Admission
from gateway.session.storage import RecordStore
from gateway.sessions import Sessions
from gateway.transports.open import Connections
from gateway.transports.openai.chat import ChatCompletions
from gateway.transports.openai.conversations import Conversations
from gateway.transports.openai.gate import SHOWN, TAKEN, OpenAiGate
from gateway.transports.openai.keeping import Bounds, Keeper
from gateway.transports.openai.models import Models
from gateway.transports.openai.responses import Responses
from gateway.transports.openai.socket import ResponsesSocket
from gateway.transports.openai.starting import Starter
from gateway.transports.openai.warm import WarmSessions
from gateway.transports.origins import Origins
from gateway.transports.proxies import Proxies


def paths(
    sessions: Sessions,
    records: RecordStore,
    *,
    admission: Admission,
    origins: Origins,
    proxies: Proxies,
    keep_seconds: float,
    bounds: Bounds,
    heartbeat_seconds: float,
    connections: Connections,
    answered: Counter[int],
) -> list[BaseRoute]:
    """Return the paths' routes.

    Args:
        sessions: The replica's sessions.
        records: Stores responses and conversations.
        admission: Authenticates clients, and limits their requests.
        origins: Origins whose pages may send requests.
        proxies: Finds clients' addresses.
        keep_seconds: Seconds until records that are not read are deleted.
        bounds: Maximum length of histories.
        heartbeat_seconds: Maximum silence of a stream.
        connections: Counts WebSocket connections.
        answered: Counts requests by the status of their responses.
    """
    gate = OpenAiGate(
        admission, origins=origins, proxies=proxies, taken=TAKEN, shown=SHOWN, answered=answered
    )
    keeper = Keeper(records, keep_seconds, bounds)
    starter = Starter(sessions, keeper, time.time)
    most_bytes = sessions.message_bytes
    responses = Responses(
        sessions,
        gate,
        starter,
        keeper,
        most_bytes=most_bytes,
        heartbeat_seconds=heartbeat_seconds,
    )
    socket = ResponsesSocket(
        sessions,
        starter,
        keeper,
        admission=admission,
        origins=origins,
        proxies=proxies,
        connections=connections,
        most_bytes=most_bytes,
    )
    completions = ChatCompletions(
        sessions,
        gate,
        starter,
        keeper,
        WarmSessions(sessions, records),
        heartbeat_seconds=heartbeat_seconds,
        clock=time.time,
    )
    return [
        *responses.routes(),
        WebSocketRoute("/openai/v1/responses", socket.serve),
        *completions.routes(),
        *Conversations(gate, starter, keeper, most_bytes).routes(),
        *Models(sessions, gate).routes(),
    ]
