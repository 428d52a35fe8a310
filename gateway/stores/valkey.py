"""Sessions in Valkey, or Redis, which uses the same protocol: for replicas on any machine.

The client is valkey-py; docs/replicas.md says why.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from valkey.asyncio import ConnectionPool, Valkey
from valkey.asyncio.cluster import ValkeyCluster
from valkey.exceptions import NoScriptError, ValkeyClusterException, ValkeyError

from gateway.measures import StoreMeasures
from gateway.session.storage import (
    NOBODY,
    OVER_SECONDS,
    Beats,
    Change,
    Count,
    Fenced,
    Glimpse,
    Outdated,
    Pending,
    Saved,
    Title,
    Unreadable,
    Use,
)
from gateway.stores import scripts
from gateway.stores.line import (
    TIMEOUT_SECONDS,
    Command,
    Line,
    Reply,
    unavailable,
)
from gateway.stores.sealing import Sealer

INBOX_SECONDS = 60
"""Seconds for which letters are kept for a replica that does not collect them."""

LETTERS = 256
"""Maximum number of letters collected at once."""

log = structlog.stdlib.get_logger("gateway.store")

_DIGESTS = {script: sha1(script.encode()).hexdigest() for script in scripts.ALL}  # noqa: S324

_ATTEMPTS = {"connection_error_retry_attempts": 0, "cluster_error_retry_attempts": 1}
"""By default, the cluster's client would retry for far longer than a reply may take."""

_FAILURES = (ValkeyError, ValkeyClusterException, OSError)


@contextlib.asynccontextmanager
async def valkey_store(
    url: str,
    *,
    password: str | None = None,
    ca_file: Path | None = None,
    sealer: Sealer | None = None,
    measures: StoreMeasures | None = None,
) -> AsyncIterator["ValkeyStore"]:
    """Create a store. It connects on first use.

    Args:
        url: ``valkey://``, ``valkeys://`` for TLS, or the same with ``redis``; ``?cluster=true``
            for a cluster, and no other query.
        password: Of the user in `url`, or of the default one.
        ca_file: Certificates that the server's is verified with; None for the system's.
        sealer: Encrypts messages; None to store them unencrypted.
        measures: Counts commands and failures.
    """
    measures = measures or StoreMeasures()
    address, _, query = url.partition("?")
    options: dict[str, Any] = {"socket_connect_timeout": TIMEOUT_SECONDS, "socket_timeout": None}
    if password is not None:
        options["password"] = password
    if urlsplit(url).scheme in {"valkeys", "rediss"}:  # by default, no host name is checked
        options |= {"ssl_check_hostname": True, "ssl_ca_certs": ca_file and str(ca_file)}
    async with contextlib.AsyncExitStack() as stack:

        def kept(client: Any) -> Any:
            stack.push_async_callback(_close, client)
            return client

        line: Line | _ClusterLine
        if query == "cluster=true":
            options.update(_ATTEMPTS)
            client = kept(
                _Cluster.from_url(address, **{**options, "socket_timeout": TIMEOUT_SECONDS})
            )
            line = _ClusterLine(client, measures)
            waiting = kept(_Cluster.from_url(address, **options))
        else:
            pool = ConnectionPool.from_url(address, **options)
            line = kept(Line(pool, scripts.ALL, measures))
            waiting = kept(Valkey.from_pool(pool))
        yield ValkeyStore(line, waiting, sealer=sealer or Sealer())


async def _close(client: Any) -> None:
    with contextlib.suppress(*_FAILURES):
        await client.aclose()


class _Cluster(ValkeyCluster):
    """A client that keeps the configured nodes; its base drops failed nodes, even the last."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._first = dict(self.nodes_manager.startup_nodes)

    async def initialize(self) -> "_Cluster":
        """Discover the cluster from known nodes, or from those of the URL."""
        known = self.nodes_manager.startup_nodes
        self.nodes_manager.startup_nodes = {**known, **self._first, **known}
        await super().initialize()
        return self


class _ClusterLine:
    """Sends each command to the node of its slot, with the cluster's client.

    Args:
        client: The client.
        measures: Counts commands, each of which is a round trip.

    Attributes:
        breaks: Always 0: a failed node shows only when a command to it fails.
    """

    breaks = 0

    def __init__(self, client: ValkeyCluster, measures: StoreMeasures | None = None) -> None:
        self._client = client
        self._measures = measures or StoreMeasures()
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, *commands: Command, read: Callable[[Any], Any] | None = None) -> Reply:
        """See `gateway.stores.line.Line.send`."""
        reply = Reply(commands, read)
        sending = asyncio.get_running_loop().create_task(self._send(reply))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        return reply

    async def _send(self, reply: Reply) -> None:
        try:
            for command in reply.commands:
                reply.take(await self._execute(command))
        except Exception as error:  # noqa: BLE001 - raised to the caller
            self._measures.failures += 1
            reply.fail(unavailable(error) if isinstance(error, _FAILURES) else error)
        reply.finish()

    async def _execute(self, command: Command) -> Any:
        loop, measures = asyncio.get_running_loop(), self._measures
        measures.commands += 1
        begun = loop.time()
        try:
            reply = await self._client.execute_command(*command)
        except NoScriptError:  # the script was not run
            for script in scripts.ALL:
                await self._client.script_load(script)
            reply = await self._client.execute_command(*command)
        measures.trips.observe(loop.time() - begun)
        return reply


class ValkeyStore:
    """See `gateway.session.storage.Store`.

    Args:
        line: Sends commands that don't block.
        waiting: A client for blocking commands.
        sealer: Encrypts messages.
    """

    def __init__(self, line: Line | _ClusterLine, waiting: Any, *, sealer: Sealer) -> None:
        self._line = line
        self._ask: Callable[..., Pending] = line.send
        self._waiting = waiting
        self._seal = sealer.seal
        self._open = sealer.open
        self._counting: Sequence[str] = ()  # last known keys of all replicas' counts

    def save(
        self,
        session_id: str,
        title: Title,
        number: int,
        change: Change,
        *,
        seconds: float,
        release: bool = False,
    ) -> Pending:
        """See `SessionStore.save`."""
        seal = self._seal
        turns: list[Any] = []
        for key, body in change.turns.items():
            turns += (key, seal(body, session_id))
        ended = [seal(each, session_id) for each in change.ended] if change.ended else ()
        said = [seal(each, session_id) for each in change.said] if change.said else ()
        command = _script(
            scripts.SAVE,
            _keys(session_id),
            title.owner,
            title.token,
            number,
            int(change.whole),
            int(release),
            int(seconds * 1000),
            seal(change.head, session_id),
            change.last,
            change.first,
            b"" if change.events is None else seal(change.events, session_id),
            change.max_ended,
            change.max_said,
            len(turns),
            *turns,
            len(change.gone),
            *change.gone,
            len(ended),
            *ended,
            len(said),
            *said,
        )
        if change.whole:
            return self._ask(("SADD", _owned(title.owner), session_id), command, read=_saved)
        return self._ask(command, read=_saved)

    async def glimpse(self, session_id: str) -> Glimpse | None:
        """See `SessionStore.glimpse`."""
        key = _keys(session_id)[0]
        owner, token, head = await self._ask(("HMGET", key, "owner", "token", "head"))
        if head is None:
            return None
        return Glimpse(Title(owner.decode(), int(token)), self._open(head, session_id))

    async def claim(self, session_id: str, before: Title, replica: str) -> Saved | None:
        """See `SessionStore.claim`."""
        found = await self._ask(
            ("SADD", _owned(replica), session_id),
            _script(scripts.CLAIM, _keys(session_id), before.owner, before.token, replica),
        )
        if found is None:
            return None
        if before.owner not in {NOBODY, replica}:
            # Not awaited: a stale entry does no harm, since the session names its new owner.
            self._ask(("SREM", _owned(before.owner), session_id))
        fields, log_entries, ended, said = found
        kept = dict(zip(fields[::2], fields[1::2], strict=True))
        unsealed = self._open
        return Saved(
            title=Title(replica, before.token + 1),
            number=int(kept[b"number"]),
            head=unsealed(kept[b"head"], session_id),
            turns={
                field[2:].decode(): unsealed(body, session_id)
                for field, body in kept.items()
                if field.startswith(b"t:")
            },
            ended=[unsealed(each, session_id) for each in ended],
            said=[unsealed(each, session_id) for each in said],
            events=[unsealed(entry[1][1], session_id) for entry in log_entries],
        )

    async def delete(self, session_id: str, title: Title) -> None:
        """See `SessionStore.delete`."""
        keys = _keys(session_id)
        if await self._ask(_script(scripts.DELETE, keys, title.token, int(OVER_SECONDS * 1000))):
            await self._ask(("SREM", _owned(title.owner), session_id))

    async def owned(self, replica: str, count: int) -> Sequence[str]:
        """See `SessionStore.owned`."""
        found = await self._ask(("SRANDMEMBER", _owned(replica), count))
        return [each.decode() for each in found]

    async def disown(self, replica: str, session_ids: Sequence[str]) -> None:
        """See `SessionStore.disown`."""
        if session_ids:
            await self._ask(("SREM", _owned(replica), *session_ids))

    async def beat(self, replica: str) -> Beats:
        """See `ReplicaStore.beat`."""
        now, found = await self._ask(_script(scripts.BEAT, [_REPLICAS], replica))
        ages = zip(found[::2], found[1::2], strict=True)
        known = {name.decode(): float(age) for name, age in ages}
        return Beats(float(now), known, self._line.breaks)

    async def resign(self, replica: str) -> None:
        """See `ReplicaStore.resign`."""
        await self._ask(("ZADD", _REPLICAS, 0, replica))

    async def bury(self, replica: str) -> None:
        """See `ReplicaStore.bury`."""
        await self._ask(
            ("DEL", _owned(replica)), ("DEL", _inbox(replica)), ("ZREM", _REPLICAS, replica)
        )

    async def post(self, replica: str, letters: Sequence[bytes]) -> int:
        """See `ReplicaStore.post`."""
        sealed = [self._seal(each, replica) for each in letters]
        return int(
            await self._ask(_script(scripts.POST, [_inbox(replica)], INBOX_SECONDS, *sealed))
        )

    async def collect(self, replica: str, seconds: float) -> Sequence[bytes]:
        """See `ReplicaStore.collect`."""
        pop: Command = ("BLMPOP", seconds) if seconds > 0 else ("LMPOP",)  # 0 blocks forever
        try:
            async with asyncio.timeout(seconds + TIMEOUT_SECONDS):
                found = await self._waiting.execute_command(
                    *pop, 1, _inbox(replica), "LEFT", "COUNT", LETTERS
                )
        except _FAILURES as error:
            if isinstance(self._waiting, Valkey):  # its server may no longer be the primary
                await _close(self._waiting)
            raise unavailable(error) from None
        letters = []
        for each in () if found is None else found[1]:
            try:
                letters.append(self._open(each, replica))
            except Unreadable as error:
                log.warning("a message from another replica can't be read", why=str(error))
        return letters

    async def add_ticket(self, digest: str, holder: bytes, expires_at: float) -> None:
        """See `TicketStore.add_ticket`."""
        # A key with PXAT exists until the end of that millisecond.
        at = int(expires_at * 1000) - 1
        await self._ask(("SET", _ticket(digest), self._seal(holder, digest), "PXAT", at))

    async def take_ticket(self, digest: str) -> bytes | None:
        """See `TicketStore.take_ticket`."""
        return self._opened(await self._ask(("GETDEL", _ticket(digest))), digest)

    async def put_record(self, name: str, record: bytes, seconds: float) -> None:
        """See `RecordStore.put_record`."""
        key = _record(name)
        await self._ask(("SET", key, self._seal(record, key), "PX", _milliseconds(seconds)))

    async def add_record(self, name: str, record: bytes, seconds: float) -> bool:
        """See `RecordStore.add_record`."""
        return await self._put_if("NX", name, record, seconds)

    async def replace_record(self, name: str, record: bytes, seconds: float) -> bool:
        """See `RecordStore.replace_record`."""
        return await self._put_if("XX", name, record, seconds)

    async def _put_if(self, when: str, name: str, record: bytes, seconds: float) -> bool:
        key, kept_for = _record(name), _milliseconds(seconds)
        asked = ("SET", key, self._seal(record, key), when, "PX", kept_for)
        return await self._ask(asked) is not None

    async def get_record(self, name: str, seconds: float | None = None) -> bytes | None:
        """See `RecordStore.get_record`."""
        key = _record(name)
        if seconds is None:
            return self._opened(await self._ask(("GET", key)), key)
        return self._opened(await self._ask(("GETEX", key, "PX", _milliseconds(seconds))), key)

    async def take_record(self, name: str) -> bytes | None:
        """See `RecordStore.take_record`."""
        key = _record(name)
        return self._opened(await self._ask(("GETDEL", key)), key)

    def _opened(self, kept: bytes | None, about: str) -> bytes | None:
        with contextlib.suppress(Unreadable):
            return None if kept is None else self._open(kept, about)
        return None

    async def delete_record(self, name: str) -> bool:
        """See `RecordStore.delete_record`."""
        return bool(await self._ask(("DEL", _record(name))))

    async def count(
        self, replica: str, counts: Sequence[Count], *, whole: bool, seconds: float
    ) -> Sequence[int]:
        """See `CountStore.count`."""
        own = f"{_COUNTS}:{replica}"
        arguments = [int(seconds * 1000), int(whole), *itertools.chain.from_iterable(counts)]
        while True:
            keys = [_COUNTS, own, *(key for key in self._counting if key != own)]
            reply = await self._ask(_script(scripts.COUNT, keys, *arguments))
            if reply == b"OUTDATED":
                raise Outdated
            given: Sequence[int] | None = reply[0]
            if given is not None:
                return given
            self._counting = [key.decode() for key in reply[1]]

    def use(self, name: str, uses: Sequence[Use]) -> Pending:
        """See `CountStore.use`."""
        arguments = itertools.chain.from_iterable(uses)
        return self._ask(_script(scripts.USE, [f"sg:used:{name}"], *arguments), read=_seconds)


def _script(script: str, keys: Sequence[str], *arguments: Any) -> Command:
    return ("EVALSHA", _DIGESTS[script], len(keys), *keys, *arguments)


def _saved(reply: bytes) -> None:
    if reply == b"FENCED":
        raise Fenced
    if reply == b"OUTDATED":
        raise Outdated


def _seconds(reply: Sequence[bytes]) -> Sequence[float]:
    return [float(each) for each in reply]


_REPLICAS = "sg:replicas"

_COUNTS = "sg:{counts}"
"""Hash tag of all replicas' counts, so that one script can read them."""


@lru_cache(maxsize=10_000)
def _keys(session_id: str) -> tuple[str, str, str, str]:
    key = f"sg:{{{session_id}}}"
    return key, f"{key}:log", f"{key}:ended", f"{key}:said"


def _owned(replica: str) -> str:
    return f"sg:owned:{replica}"


def _inbox(replica: str) -> str:
    return f"sg:inbox:{replica}"


def _record(name: str) -> str:
    return f"sg:record:{name}"


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _ticket(digest: str) -> str:
    return f"sg:ticket:{digest}"
