"""What one client is told and says, judged by the protocol's text alone, over all its connections.

It looks on at the WebSocket, so that it is the same for any client. What only the model knows is
judged at the end; see `tests.chaos.verdict`.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.chaos import texts

Message = dict[str, Any]

COME_BACK = {None, 1006, 1011, 1012, 4408, 4413, 4429, 4503}
"""Close codes, and none, after which a session may be resumed."""

REFUSALS = {"unavailable", "queue_full", "session_lost", "unknown_message"}
"""What messages may be refused with here."""


class Turn:
    """One message, and what was heard of it.

    Attributes:
        text: What it says.
        streams: Whether it asks for its reply in parts.
        accepted: Whether it was, and as which event.
        refused: Whether the last that was heard of it is that it was refused.
        parts: Of the reply.
        status: How it has ended; what it has failed with, or been cancelled as, is its `outcome`.
        gap: Whether some of it may be lost, as was said.
    """

    def __init__(self, text: str, *, streams: bool) -> None:
        self.text = text
        self.streams = streams
        self.accepted: int | None = None
        self.refused = False
        self.parts: list[str] = []
        self.next_index = 0
        self.status: str | None = None
        self.outcome: str | None = None
        self.code: str | None = None
        self.gap = False


class Session:
    """One session as its client has seen it.

    Attributes:
        client: Whose it is.
        last: The newest event.
        turns: By message id, in the order sent.
        over: Why it is, where it is.
        places: Which processes its connections went to.
        alive_at: When something of it was heard last.
        left: Whether its client does not come back.
    """

    def __init__(self, session_id: str, client: str) -> None:
        self.id = session_id
        self.client = client
        self.last = 0
        self.resume_seconds = 0.0
        self.turns: dict[str, Turn] = {}
        self.over: str | None = None
        self.places: list[str] = []
        self.opened_at = self.alive_at = time.monotonic()
        self.lost_at: float | None = None
        self.left = False
        self.closing = False
        self.asked: list[tuple[float, float]] = []
        """When it was asked for over another connection, and until when it was not had."""
        self.given_up = 0
        """How often it was asked for over a connection that gave no answer."""

    def __str__(self) -> str:
        return f"{self.client}, {self.id}"


class Witness:
    """Judges a client.

    Args:
        name: The client's.
        path: Where all that it says and hears is written.

    Attributes:
        broken: Promises that were not kept.
        gone: Sessions that were gone, when, and how that was said.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.broken: list[str] = []
        self.gone: list[tuple[float, Session, str]] = []
        self.sessions: list[Session] = []
        self.counts: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.lost: list[tuple[int, int]] = []
        self.reconnects: list[tuple[str, str]] = []
        """From where to where its sessions have gone on over another connection."""
        self._log: TextIO = path.open("w")
        self._at = ""
        self._session: Session | None = None
        self._ready = False
        self._asked = self._deaf = False
        self._asked_at = 0.0

    def close(self) -> None:
        """Write nothing more."""
        self._log.close()

    def note(self, text: str) -> None:
        """Write what is neither said nor heard."""
        self._log.write(f"{time.monotonic():.3f} {text}\n")

    def fault(self, text: str) -> None:
        """A promise was not kept."""
        self.note(f"!!! {text}")
        self._log.flush()
        where = self.name if self._session is None else str(self._session)
        self.broken.append(f"{where}: {text}")

    @property
    def session(self) -> Session | None:
        """The one that there is."""
        return self._session

    @property
    def place(self) -> str:
        """Where the connection is that its session has; empty where it has none."""
        return self._at if self._ready and self._session is not None else ""

    # What its connections tell

    def connected(self, where: str) -> None:
        """A connection is there, to that process."""
        self.note(f"--- connected to {where}")
        self._at, self._ready, self._asked, self._deaf = where, False, False, False

    def ended(self, code: int | None, why: str) -> None:
        """It is no more."""
        if self._deaf:
            return
        self.note(f"--- closed {code} {why}")
        self.codes[str(code or "lost")] += 1
        session, now = self._session, time.monotonic()
        if session is None or session.over is not None:
            if code not in COME_BACK and code != 1000:
                self.fault(f"closed with {code} {why}")
            return
        if self._ready:
            session.lost_at = now
        elif self._asked:
            session.asked.append((self._asked_at, now))
            session.given_up += code in {None, 1006}
        self._ready = False
        away = 0.0 if session.lost_at is None else now - session.lost_at
        if code == 4410:
            session.over = "gone"
            if away < session.resume_seconds:
                self.gone.append((now, session, f"4410 after {away:.1f} s"))
        elif code == 4409 and session.given_up:
            session.over = "taken over by its own earlier attempt"
            self.counts[session.over] += 1
        elif code == 1000:
            if not session.closing:
                self.fault("closed with 1000 without having asked for it")
            session.over = "closed"
        elif code not in COME_BACK or code == 1011:
            self.fault(f"closed with {code} {why}")

    def leave(self) -> None:
        """The client does not come back for its session, and hears nothing more of it."""
        self._deaf = True
        if self._session is not None:
            self.note("--- leaves")
            self._session.left = True
            self._session = None

    # What it says

    def said(self, message: Message) -> None:
        """The client has sent this."""
        if self._deaf:
            return
        self.note("> " + json.dumps(message))
        kind, session = message["type"], self._session
        if kind == "session.open":
            self._asked, self._asked_at = True, time.monotonic()
            if "session_id" not in message:
                if session is not None and session.over is None:
                    session.over = "given up"
                    self._give_up(session)
                self._session = None
            elif session is None or message["session_id"] != session.id:
                self.fault("resumes a session that it has not got")
            elif message["last_event"] != session.last:
                self.fault(f"says that it has event {message['last_event']}, not {session.last}")
        elif session is None:
            self.fault(f"says {kind} without a session")
        elif kind == "message.send" and message["id"] not in session.turns:
            streams = message.get("stream", True)
            session.turns[message["id"]] = Turn(message["text"], streams=streams)
        elif kind == "session.close":
            session.closing = True

    def _give_up(self, session: Session) -> None:
        away = None if session.lost_at is None else time.monotonic() - session.lost_at
        if away is None or away < session.resume_seconds:
            self.fault(f"has given a session up after {away} s")
        else:
            self.counts["away for too long"] += 1

    # What it hears

    def heard(self, message: Message) -> None:
        """The client has received this."""
        if self._deaf:
            return
        self.note("< " + json.dumps(message))
        kind = message["type"]
        if kind == "session.opened":
            if self._session is not None:
                self.fault("has got another session")
            self._session = Session(message["session_id"], self.name)
            self._session.resume_seconds = message["limits"]["resume_seconds"]
            self._session.places.append(self._at)
            self.sessions.append(self._session)
            self._ready = True
            self.counts["sessions"] += 1
        session = self._session
        if session is None:
            if kind != "error":
                self.fault(f"hears {kind} without a session")
            return
        session.alive_at = time.monotonic()
        if "event" in message:
            if message["event"] != session.last + 1:
                self.fault(f"event {message['event']} after {session.last}")
            session.last = message["event"]
            if not self._ready:
                self.fault("an event before session.resumed")
        handle: Callable[[Session, Message], None] | None = getattr(
            self, "_" + kind.replace(".", "_"), None
        )
        if handle is not None:
            handle(session, message)
        elif kind not in {"session.opened", "session.updated", "pong"}:
            self.fault(f"hears {kind}")

    def _session_resumed(self, session: Session, message: Message) -> None:
        if message["session_id"] != session.id:
            self.fault("has got another session than it asked for")
        if message["last_event"] < session.last:
            self.fault(f"the newest event is {message['last_event']}, and it had {session.last}")
        lost = message["lost"]
        if lost is not None:
            if lost[0] != session.last + 1 or lost[1] < lost[0]:
                self.fault(f"lost {lost} after {session.last}")
            self.lost.append((lost[0], lost[1]))
            session.last = lost[1]
            for turn in session.turns.values():
                turn.gap = turn.gap or turn.status is None
        self._ready = True
        session.lost_at = None
        session.asked.append((self._asked_at, time.monotonic()))
        self.reconnects.append((session.places[-1], self._at))
        session.places.append(self._at)

    def _session_closed(self, session: Session, message: Message) -> None:
        session.over = "closed"
        for turn_id, turn in session.turns.items():
            if turn.accepted is not None and turn.status is None and not turn.gap:
                self.fault(f"{turn_id} was accepted, and the session has ended before it")
        if message["reason"] != "client" or not session.closing:
            self.gone.append((time.monotonic(), session, f"session.closed {message['reason']}"))

    def _error(self, session: Session, message: Message) -> None:
        self.counts[f"refused: {message['code']}"] += 1
        turn = session.turns.get(message.get("id", ""))
        if message["code"] not in REFUSALS:
            self.fault(f"error {message}")
        if turn is not None and turn.accepted is None:
            turn.refused = True

    def _turn(self, session: Session, message: Message) -> Turn | None:
        turn = session.turns.get(message["id"])
        if turn is None:
            self.fault(f"hears of a message that it has not sent: {message['id']}")
        return turn

    def _message_accepted(self, session: Session, message: Message) -> None:
        turn = self._turn(session, message)
        if turn is not None:
            if turn.accepted is not None:
                self.fault(f"{message['id']} was accepted twice")
            turn.accepted, turn.refused = message["event"], False

    def _message_duplicate(self, session: Session, message: Message) -> None:
        turn = self._turn(session, message)
        if turn is not None:
            turn.refused = False
            self.counts["duplicates"] += 1

    def _message_delta(self, session: Session, message: Message) -> None:
        turn = self._turn(session, message)
        if turn is None:
            return
        self.counts["deltas"] += 1
        if (turn.accepted is None and not turn.gap) or turn.status is not None:
            self.fault(f"a part of {message['id']}, which is not running")
        index = message["index"]
        if index < turn.next_index or (index > turn.next_index and not turn.gap):
            self.fault(f"part {index} of {message['id']}, and it had {turn.next_index}")
        turn.next_index = index + 1
        turn.parts.append(message["text"])
        if not turn.gap and not "".join(texts.parts(turn.text)).startswith("".join(turn.parts)):
            self.fault(f"{message['id']} is answered with {''.join(turn.parts)!r}")

    def _message_done(self, session: Session, message: Message) -> None:
        turn = self._turn(session, message)
        if turn is None:
            return
        message_id, status = message["id"], message["status"]
        if turn.accepted is None and not turn.gap:
            self.fault(f"{message_id} ends and was not accepted")
        if turn.status is not None:
            self.fault(f"{message_id} has ended twice")
        turn.status = status
        error = message.get("error")
        turn.outcome = error["outcome"] if error else message.get("outcome")
        turn.code = error["code"] if error else None
        what = f": {turn.code}" if turn.code else ""
        which = f", {turn.outcome}" if turn.outcome else ""
        self.counts[f"turns {status}{what}{which}"] += 1
        self.counts["turns"] += 1
        if status == "completed" and not turn.gap:
            if message["deltas"] != len(turn.parts):
                self.fault(f"{message_id} had {message['deltas']} parts, not {len(turn.parts)}")
            reply = message.get("text") or "".join(turn.parts)
            if reply != "".join(texts.parts(turn.text)):
                self.fault(f"{message_id} is answered with {reply!r}")
        if status == "failed" and turn.code != "gateway_lost":
            self.fault(f"{message_id} has failed: {error}")


class Watched(ClientConnection):
    """A connection that a witness looks on at."""

    witness: Witness
    where: Callable[[int], str]
    _is_there = False

    async def recv(self, decode: bool | None = None) -> Any:
        """See `ClientConnection.recv`."""
        try:
            frame = await super().recv(decode)
        except ConnectionClosed:
            self._tell_end()
            raise
        self.witness.heard(_decoded(frame))
        return frame

    async def send(self, message: Any, *, text: bool | None = None) -> None:
        """See `ClientConnection.send`."""
        # First: the answer can be read before this returns.
        self.witness.said(_decoded(message))
        await super().send(message, text=text)

    async def handshake(self, *arguments: Any, **options: Any) -> None:
        """See `ClientConnection.handshake`."""
        await super().handshake(*arguments, **options)
        self._is_there = True
        port = self.transport.get_extra_info("sockname")[1]
        self.witness.connected(self.where(port))

    def _tell_end(self) -> None:
        if self._is_there:
            self._is_there = False
            received = self.protocol.close_rcvd
            code = None if received is None else int(received.code)
            self.witness.ended(code, "" if received is None else received.reason)


def watched(witness: Witness, where: Callable[[int], str]) -> type[ClientConnection]:
    """Connections that a witness looks on at."""

    class Connection(Watched):
        pass

    Connection.witness, Connection.where = witness, staticmethod(where)
    return Connection


def _decoded(frame: str | bytes) -> Message:
    message: Message = (
        json.loads(frame) if isinstance(frame, str) else msgspec.msgpack.decode(frame)
    )
    return message
