"""The implementation of `gateway.admission`: who may connect, and with which limits."""

import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256

import msgspec
import structlog
from cachetools import TTLCache

from gateway.addresses import is_loopback, network_of
from gateway.admission import ANONYMOUS, Allowance, Credentials, Refused, Ticket
from gateway.errors import WAIT_SECONDS, ErrorCode
from gateway.logs import LogLimit
from gateway.security.keys import Keys, looks_like_a_key
from gateway.security.keysets import KeysUnavailable
from gateway.security.limits import BURST_SECONDS, Accounts, Bucket
from gateway.security.principals import Principal
from gateway.security.tokens import BadToken, Tokens
from gateway.session.storage import StoreUnavailable, TicketStore

log = structlog.stdlib.get_logger("gateway.security")

TICKET_SECONDS = 30.0
"""Lifetime of a ticket."""

SHARES = 4
"""One address gets at most one in this many of the handshakes per second."""

SITE_BITS = 48
"""Prefix length of an IPv6 site, which has 65,536 networks as they are counted here."""

SITE_SHARES = 2
"""As `SHARES`, for a site."""

KEPT = 0.5
"""Share of the burst that is reserved for sites without a handshake in the last two seconds, so
that frequent visitors can't shut out occasional ones."""

ADDRESSES = 10_000
"""Number of addresses, and of sites, whose buckets are kept."""

REFUSALS_A_MINUTE = 60
"""Log lines a minute about refused visitors, for each reason."""


def _nobody() -> Refused:
    return Refused(ErrorCode.UNAUTHENTICATED, "This requires a valid key, token or ticket.")


def _unlimited(_size: int) -> float:
    return 0.0


_Taken = tuple[Bucket, float]
"""A bucket, and the amount that was taken from it."""


def _uncounted() -> None:
    return None


class Guest:
    """See `gateway.admission.Visitor`."""

    __slots__ = (
        "_address",
        "_door",
        "_known",
        "_left",
        "_refused",
        "_route",
        "_taken",
        "allowance",
        "on_withdrawn",
        "take",
    )

    def __init__(
        self, door: "Door", address: str, refused: Refused | None, taken: Iterable[_Taken] = ()
    ) -> None:
        self.on_withdrawn: Callable[[], None] | None = None
        self._door = door
        self._address = address
        self._refused = refused
        self._taken = taken
        self._known: Principal | None = None
        # The account's methods, once the principal is known.
        self.take: Callable[[int], float] = _unlimited
        self.allowance: Callable[[], Allowance | None] = _uncounted
        self._route: str | None = None
        self._left = False

    @property
    def principal(self) -> str | None:
        """See `gateway.admission.Visitor`."""
        if self._known is not None:
            return self._known.name
        return None if self._door.required else ANONYMOUS

    @property
    def is_operator(self) -> bool:
        """See `gateway.admission.Visitor`."""
        return self._door.all_operate if self._known is None else self._known.operator

    @property
    def expires_at(self) -> float | None:
        """See `gateway.admission.Visitor`."""
        return None if self._known is None else self._known.expires_at

    async def identify(self, credentials: Credentials, *, route: str | None) -> None:
        """See `gateway.admission.Visitor`."""
        if self._refused is not None:
            refused, self._refused = self._refused, None  # breaks the cycle with its traceback
            raise refused
        if not self._door.required or not credentials:
            return
        known = await self._door.identify(credentials, self._address)
        self._route = route
        _check_route(known, route)
        account = await self._door.accounts.connect(known)
        if account is None:
            self._door.limits_hit["connections_per_principal"] += 1
            text = "You have reached your limit of connections."
            raise Refused(ErrorCode.RATE_LIMITED, text, WAIT_SECONDS)
        now = self._door.current(known)
        if self._left or now is None:  # while the account was awaited
            self._door.accounts.disconnect(known.name)
            raise _nobody()
        self._door.accounts.change(now)
        self.take, self.allowance = account.take, account.allowance
        self._know(now)

    def _know(self, known: Principal) -> None:
        self._known = known
        self._door.watch(self, known)

    async def refresh(self, token: str) -> None:
        """See `gateway.admission.Visitor`."""
        before = self._known
        if before is None:
            return
        known = await self._door.identify(Credentials(token), self._address)
        if self._left:  # while the token was checked
            return
        if known.name != before.name:
            raise Refused(ErrorCode.FORBIDDEN, "This token belongs to another principal.")
        _check_route(known, self._route)
        self._know(known)

    def check_route(self, route: str) -> None:
        """See `gateway.admission.Visitor`."""
        if self._known is not None:
            _check_route(self._known, route)

    def refund(self) -> None:
        """See `gateway.admission.Visitor`."""
        for bucket, amount in self._taken:
            bucket.give_back(amount)
        self._taken = ()

    def release(self) -> None:
        """See `gateway.admission.Visitor`."""
        if not self._left:
            self._left = True
            self.on_withdrawn = None  # holds a reference to the connection
            self._door.left(self, self._address, self._known)

    def recheck(self) -> None:
        """Look up this visitor's key again after the keys have changed."""
        if self._known is None:
            return
        now = self._door.current(self._known)
        if now is not None:
            self._known = now
            self._door.accounts.change(now)
            return
        self._door.unwatch(self)
        self._door.log_refused("a key that was withdrawn", self._address)
        if self.on_withdrawn is not None:
            self.on_withdrawn()

    async def ticket(self) -> Ticket:
        """See `gateway.admission.Visitor`."""
        if self._known is None:
            raise _nobody()
        if wait := self.take(0):
            raise Refused(ErrorCode.RATE_LIMITED, "Rate limit exceeded; try again later.", wait)
        return await self._door.issue(self._known)


class Door:
    """See `gateway.admission.Admission`.

    Args:
        keys: API keys; None if none are configured.
        tokens: Checks tokens; None if none are accepted.
        tickets: Stores tickets.
        accounts: Tracks the usage of principals.
        connections_per_address: Maximum of concurrent connections from one address.
        handshakes_per_second: Rate of new connections, from all addresses together.
        all_operate: Whether everybody is an operator, if no credentials are required.
        wall: Returns seconds since the epoch.
        clock: Returns seconds of a monotonic clock.

    Attributes:
        all_operate: As given; False if credentials are required.
        limits_hit: How often each setting has refused a visitor, by its name.
    """

    def __init__(
        self,
        *,
        keys: Keys | None,
        tokens: Tokens | None,
        tickets: TicketStore,
        accounts: Accounts,
        connections_per_address: int,
        handshakes_per_second: float,
        all_operate: bool = False,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.accounts = accounts
        self.limits_hit = Counter(
            connections_per_address=0, connections_per_principal=0, handshakes_per_second=0
        )
        self._keys = keys
        self._tokens = tokens
        self._tickets = tickets
        self.all_operate = all_operate and not self.required
        self._with_keys: set[Guest] = set()
        if keys is not None:
            keys.on_change = self._recheck
        self._connections: Counter[str] = Counter()
        self._connections_per_address = connections_per_address
        self._handshakes = Bucket(handshakes_per_second, clock())
        # Buckets expire when they are full again.
        self._of_addresses: TTLCache[str, Bucket] = TTLCache(ADDRESSES, BURST_SECONDS, timer=clock)
        self._of_sites: TTLCache[str, Bucket] = TTLCache(ADDRESSES, BURST_SECONDS, timer=clock)
        self._wall = wall
        self._clock = clock
        self._logged = LogLimit(REFUSALS_A_MINUTE)

    @property
    def required(self) -> bool:
        """See `gateway.admission.Admission`."""
        return self._keys is not None or self._tokens is not None

    def arrive(self, address: str) -> Guest:
        """See `gateway.admission.Admission`."""
        refused, taken = None, list[_Taken]()
        if not is_loopback(address):  # of proxies, which speak for many clients, and the operator
            refused = self._take(address, taken)
        self._connections[network_of(address)] += 1
        return Guest(self, address, refused, taken)

    def _take(self, address: str, taken: list[_Taken]) -> Refused | None:
        """Count a handshake, and note the buckets it was taken from. A handshake that is refused
        for its own address takes nothing from the shared bucket.
        """
        network = network_of(address)
        if self._connections[network] >= self._connections_per_address:
            self.limits_hit["connections_per_address"] += 1
            self.log_refused("too many connections from one address", address)
            text = "Too many connections from your address."
            return Refused(ErrorCode.RATE_LIMITED, text, WAIT_SECONDS)
        now, rate, site = self._clock(), self._handshakes.rate, network_of(address, SITE_BITS)
        own = self._of_addresses.get(network) or Bucket(rate / SHARES, now)
        lately = self._of_sites.get(site)
        around = lately or Bucket(rate / SITE_SHARES, now)
        kept = 0.0 if lately is None else KEPT * BURST_SECONDS * rate
        for bucket, amount, who in (
            (own, 1.0, " from one address"),
            (around, 1.0, " from one network"),
            (self._handshakes, 1.0 + kept, ""),
        ):
            if wait := bucket.take(amount, now):
                for other, given in taken:
                    other.give_back(given)
                taken.clear()
                self.limits_hit["handshakes_per_second"] += 1
                self.log_refused(f"too many handshakes{who}", address)
                return Refused(
                    ErrorCode.RATE_LIMITED, "Too many new connections; try again later.", wait
                )
            taken.append((bucket, amount))
        self._handshakes.give_back(kept)
        taken[-1] = (self._handshakes, 1.0)
        self._of_addresses[network] = own
        self._of_sites[site] = around
        return None

    def current(self, known: Principal) -> Principal | None:
        """Return the principal as it is now; None if its key is no longer valid."""
        if known.key is None:
            return known
        return None if self._keys is None else self._keys.current(known)

    def watch(self, guest: Guest, known: Principal) -> None:
        """Recheck a visitor when keys change, if it is known by a key."""
        if known.key is None:
            self._with_keys.discard(guest)
        else:
            self._with_keys.add(guest)

    def unwatch(self, guest: Guest) -> None:
        """Stop rechecking a visitor."""
        self._with_keys.discard(guest)

    def _recheck(self) -> None:
        for guest in [*self._with_keys]:
            guest.recheck()

    def left(self, guest: Guest, address: str, known: Principal | None) -> None:
        """Record that a visitor has disconnected."""
        self.unwatch(guest)
        network = network_of(address)
        self._connections[network] -= 1
        if not self._connections[network]:
            del self._connections[network]
        if known is not None:
            self.accounts.disconnect(known.name)

    async def identify(self, credentials: Credentials, address: str) -> Principal:
        """Authenticate credentials.

        Raises:
            Refused: They are not valid.
        """
        if credentials.ticket is not None:
            known = await self._redeem(credentials.ticket)
            why = "a ticket that is used or expired, or of a key that was withdrawn"
        else:
            known, why = await self._check(credentials.token or "")
        if known is None or (known.expires_at is not None and known.expires_at <= self._wall()):
            self.log_refused(why, address)
            raise _nobody()
        return known

    async def _check(self, token: str) -> tuple[Principal | None, str]:
        """Return the principal of a key or token; or None, and why it is refused."""
        if looks_like_a_key(token):
            return (None if self._keys is None else self._keys.find(token)), "an unknown key"
        if self._tokens is None:
            return None, "a token where only keys are taken"
        try:
            return await self._tokens.check(token), "a token: expired"
        except BadToken as error:
            return None, f"a token: {error}"
        except KeysUnavailable:
            text = "Tokens can't be checked at the moment."
            raise Refused(ErrorCode.UNAVAILABLE, text, retry_after=5.0) from None

    async def issue(self, known: Principal) -> Ticket:
        """Issue a ticket for a known principal."""
        expires_at = self._wall() + TICKET_SECONDS
        value = secrets.token_urlsafe(32)
        with _available():
            await self._tickets.add_ticket(_digest(value), msgspec.json.encode(known), expires_at)
        return Ticket(value, expires_at)

    async def _redeem(self, ticket: str) -> Principal | None:
        with _available():
            kept = await self._tickets.take_ticket(_digest(ticket))
        # The key's limits may have changed since.
        return None if kept is None else self.current(msgspec.json.decode(kept, type=Principal))

    def log_refused(self, why: str, address: str) -> None:
        """Log a refused or disconnected visitor, at a limited rate."""
        suppressed = self._logged.suppressed(why)
        if suppressed is not None:
            log.info("client refused", why=why, client=address, suppressed=suppressed)


def _check_route(known: Principal, route: str | None) -> None:
    if route is not None and not known.may_use(route):
        raise Refused(ErrorCode.FORBIDDEN, "You may not use this route.")


@contextlib.contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable:
        text = "Tickets can't be stored at the moment."
        raise Refused(ErrorCode.UNAVAILABLE, text, WAIT_SECONDS) from None


def _digest(ticket: str) -> str:
    return sha256(ticket.encode()).hexdigest()
