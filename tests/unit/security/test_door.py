"""Who comes in."""

import asyncio
import contextlib
import itertools
import weakref
from collections import Counter
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.addresses import network_of
from gateway.admission import Credentials, Refused
from gateway.errors import WAIT_SECONDS, ErrorCode
from gateway.security.door import REFUSALS_A_MINUTE, SITE_BITS, TICKET_SECONDS, Door, Guest
from gateway.security.keys import Keys, add
from gateway.security.keysets import FileKeys, KeysUnavailable
from gateway.security.limits import BURST_SECONDS, Account, LocalAccounts
from gateway.security.principals import Principal, PrincipalLimits
from gateway.security.tokens import Tokens
from gateway.session.storage import StoreUnavailable
from gateway.stores.memory import MemoryStore
from tests.support.tokens import AUDIENCE, ISSUER, Signer, write_key_set

ADDRESS = "203.0.113.9"
SIGNER = Signer("one")
NOBODY = (ErrorCode.UNAUTHENTICATED, "This requires a valid key, token or ticket.", None)
NOT_HERE = (ErrorCode.FORBIDDEN, "You may not use this route.", None)
LIMITS = PrincipalLimits(connections=3, sessions=2, messages_per_second=10, bytes_per_second=1000)


class Fixture:
    def __init__(
        self,
        path: Path,
        *,
        keys: bool = True,
        tokens: bool = True,
        tickets: MemoryStore | None = None,
        **limits: Any,
    ) -> None:
        self.now = 1000.0
        clock = self.clock
        file = self.file = path / "keys.toml"
        self.key = add(file, "ada", ["chat"])
        self.other = add(file, "bob", None)
        sets = FileKeys(write_key_set(path / "jwks.json", SIGNER))
        self.accounts = LocalAccounts(LIMITS, clock)
        self.tokens = Tokens(
            issuer=ISSUER, audience=AUDIENCE, keys=sets, algorithms=["ES256"], leeway=0.0
        )
        self.keys = Keys(file, LIMITS)
        self.tickets = MemoryStore(clock=clock) if tickets is None else tickets
        self.door = Door(
            keys=self.keys if keys else None,
            tokens=self.tokens if tokens else None,
            tickets=self.tickets,
            accounts=self.accounts,
            wall=clock,
            clock=clock,
            **{"connections_per_address": 5, "handshakes_per_second": 10.0, **limits},
        )

    def clock(self) -> float:
        return self.now

    async def enter(
        self, credentials: Credentials, route: str | None = "chat", address: str = ADDRESS
    ) -> Guest:
        guest = self.door.arrive(address)
        try:
            await guest.identify(credentials, route=route)
        except BaseException:
            guest.release()
            raise
        return guest


def test_who_operates_where_nobody_has_to_say_who_they_are(tmp_path: Path) -> None:
    for all_operate in (True, False):
        door = Fixture(tmp_path, keys=False, tokens=False, all_operate=all_operate).door
        assert door.arrive(ADDRESS).is_operator is all_operate
        tmp_path.joinpath("keys.toml").unlink()


async def test_an_operators_key(tmp_path: Path) -> None:
    f = Fixture(tmp_path, all_operate=True)
    assert not f.door.arrive(ADDRESS).is_operator, "it has shown nothing yet"
    assert not (await f.enter(Credentials(f.key))).is_operator
    key = add(f.file, "olga", None, operator=True)
    f.keys.reload()
    guest = await f.enter(Credentials(key))
    assert guest.is_operator
    ticket = await guest.ticket()
    assert (await f.enter(Credentials(ticket=ticket.value))).is_operator
    f.file.write_text(f.file.read_text().replace("operator = true\n", ""))
    f.keys.reload()
    assert not guest.is_operator, "at once"


async def refused(fixture: Fixture, credentials: Credentials, **where: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await fixture.enter(credentials, **where)
    return caught.value


def told(error: Refused) -> tuple[ErrorCode, str, object]:
    """What a client reads of it."""
    return error.code, error.text, error.retry_after


def line(why: str, address: str = ADDRESS) -> dict[str, Any]:
    """What is logged of it."""
    return {
        "event": "client refused",
        "log_level": "info",
        "why": why,
        "client": address,
        "suppressed": 0,
    }


async def test_without_authentication_everybody_is_the_same(tmp_path: Path) -> None:
    f = Fixture(tmp_path, keys=False, tokens=False)
    guest = await f.enter(Credentials("whatever"))
    assert (guest.principal, guest.expires_at, guest.take(10**9)) == ("anonymous", None, 0.0)
    with pytest.raises(Refused) as error:
        await guest.ticket()
    assert told(error.value) == NOBODY
    await guest.refresh("whatever")


async def test_keys_tokens_and_tickets(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    assert (guest.principal, guest.expires_at) == ("key:ada", None)
    token = SIGNER.token(exp=4_000_000_000)
    guest = await f.enter(Credentials(token))
    assert (guest.principal, guest.expires_at) == ("jwt:ada", 4_000_000_000.0)
    ticket = await guest.ticket()
    assert ticket.value not in repr(ticket)
    assert ticket.expires_at == f.now + TICKET_SECONDS
    again = await f.enter(Credentials(ticket=ticket.value))
    assert (again.principal, again.expires_at) == ("jwt:ada", 4_000_000_000.0)


async def test_who_shows_nothing_is_nobody_yet(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials())
    assert guest.principal is None
    await guest.identify(Credentials(f.key), route="chat")
    assert guest.principal == "key:ada"


TICKET = "a ticket that is used or expired, or of a key that was withdrawn"


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (Credentials(""), "a token: no JSON Web Token"),
        (Credentials("sgk_" + "x" * 43), "an unknown key"),
        (Credentials("x.y.z"), "a token: no JSON Web Token"),
        (Credentials(ticket=""), TICKET),
        (Credentials(ticket="x" * 43), TICKET),
        (Credentials(SIGNER.token(exp=1)), "a token: expired"),
    ],
    ids=["empty", "key", "token", "empty-ticket", "ticket", "expired"],
)
async def test_what_is_nobodys_is_refused_alike(
    shown: Credentials, why: str, tmp_path: Path
) -> None:
    f = Fixture(tmp_path)
    with capture_logs() as logs:
        error = await refused(f, shown)
    assert told(error) == NOBODY
    assert logs == [line(why)]
    for secret in filter(None, shown):
        assert secret not in repr((error, error.args, shown, logs))


async def test_keys_alone_or_tokens_alone_may_be_taken(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "tokens").mkdir()
    keys, tokens = (
        Fixture(tmp_path / "keys", tokens=False),
        Fixture(tmp_path / "tokens", keys=False),
    )
    assert keys.door.required
    assert tokens.door.required
    assert not Fixture(tmp_path, keys=False, tokens=False).door.required
    assert (await keys.enter(Credentials(keys.key))).principal == "key:ada"
    assert (await tokens.enter(Credentials(SIGNER.token()))).principal == "jwt:ada"
    with capture_logs() as logs:
        assert told(await refused(keys, Credentials(SIGNER.token()))) == NOBODY
        assert told(await refused(tokens, Credentials(tokens.key))) == NOBODY
    assert logs == [line("a token where only keys are taken"), line("an unknown key")]


async def test_a_token_is_good_until_the_second_in_which_it_expires(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    shown = Credentials(SIGNER.token(exp=4_000_000_000))
    f.now = 4_000_000_000.0 - 1
    await f.enter(shown)
    f.now += 1
    with capture_logs() as logs:
        assert told(await refused(f, shown)) == NOBODY
    assert logs == [line("a token: expired")]


async def test_a_ticket_is_good_once_and_not_for_long(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    first, second = await guest.ticket(), await guest.ticket()
    raced = await asyncio.gather(
        *[f.enter(Credentials(ticket=first.value)) for _ in range(2)], return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in raced) == ["Guest", "Refused"]
    assert (await refused(f, Credentials(ticket=first.value))).code is ErrorCode.UNAUTHENTICATED
    f.now += TICKET_SECONDS
    assert (await refused(f, Credentials(ticket=second.value))).code is ErrorCode.UNAUTHENTICATED


async def test_a_ticket_outlives_no_token(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    f.now = 4_000_000_000.0 - 1
    guest = await f.enter(Credentials(SIGNER.token(exp=4_000_000_000)))
    ticket = await guest.ticket()
    guest = await f.enter(Credentials(f.other))
    later = await guest.ticket()
    f.now += 1
    assert (await refused(f, Credentials(ticket=ticket.value))).code is ErrorCode.UNAUTHENTICATED
    await f.enter(Credentials(ticket=later.value))


async def test_a_ticket_of_a_key_is_nobodys_where_keys_are_not_taken_any_more(
    tmp_path: Path,
) -> None:
    f = Fixture(tmp_path)
    ticket = await (await f.enter(Credentials(f.key))).ticket()
    (tmp_path / "later").mkdir()
    later = Fixture(tmp_path / "later", keys=False, tickets=f.tickets)
    assert told(await refused(later, Credentials(ticket=ticket.value))) == NOBODY


async def test_routes(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    assert told(await refused(f, Credentials(f.key), route="other")) == NOT_HERE
    await f.enter(Credentials(f.other), route="other")
    await f.enter(Credentials(f.key), route=None)
    assert len(f.accounts) == 2, "who is refused is not counted"


async def test_another_token_has_to_be_of_the_same(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(SIGNER.token(exp=4_000_000_000)))
    await guest.refresh(SIGNER.token(exp=4_000_000_100))
    assert guest.expires_at == 4_000_000_100.0
    other = (ErrorCode.FORBIDDEN, "This token belongs to another principal.", None)
    for token, answer in ((SIGNER.token(sub="bob"), other), (f.key, other), ("x", NOBODY)):
        with capture_logs() as logs, pytest.raises(Refused) as error:
            await guest.refresh(token)
        assert told(error.value) == answer
        assert logs == ([line("a token: no JSON Web Token")] if answer == NOBODY else [])
    assert (guest.principal, guest.expires_at) == ("jwt:ada", 4_000_000_100.0)


async def test_a_key_that_is_withdrawn_ends_the_visits_it_has_opened(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    ended: list[str] = []
    gone = await f.enter(Credentials(f.other), address="gone")
    gone.on_withdrawn = partial(ended.append, "gone")
    ticket, late = await gone.ticket(), await gone.ticket()
    gone.release()
    shown = {
        "ada": Credentials(f.key),
        "bob": Credentials(f.other),
        "bob's ticket": Credentials(ticket=ticket.value),
        "a token": Credentials(SIGNER.token()),
    }
    for name, credentials in shown.items():
        guest = await f.enter(credentials, address=name)
        guest.on_withdrawn = partial(ended.append, name)
    refreshed = await f.enter(Credentials(SIGNER.token(sub="eve")), address="refreshed")
    refreshed.on_withdrawn = partial(ended.append, "refreshed")
    f.keys.reload()
    assert ended == [], "nothing has changed"
    f.file.write_text(f.file.read_text().partition("[bob]")[0])
    with capture_logs() as logs:
        f.keys.reload()
        f.keys.reload()
    withdrawn = partial(line, "a key that was withdrawn")
    logs.sort(key=itemgetter("client"))
    assert logs == [withdrawn("bob"), withdrawn("bob's ticket")]
    assert sorted(ended) == ["bob", "bob's ticket"], "once"
    assert (await refused(f, Credentials(ticket=late.value))).code is ErrorCode.UNAUTHENTICATED
    assert len(f.accounts) == 4, "ada, bob until he leaves, and two with tokens"
    f.file.write_text(f.file.read_text().replace("chat", "games"))
    f.keys.reload()
    assert ended[2:] == ["ada"], "whose routes are others now"


async def test_other_limits_of_a_key_hold_for_who_has_shown_it(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.other))
    tickets = [await guest.ticket() for _ in range(3)]
    with f.file.open("a") as file:
        file.write("messages_per_second = 1\nconnections = 2\n")
    f.keys.reload()
    f.now += 10
    assert [guest.take(10) for _ in range(3)] == [0.0, 0.0, pytest.approx(1.0)]
    second = await f.enter(Credentials(ticket=tickets[0].value))
    assert second.take(10) > 0, "a ticket from before does not bring the old ones back"
    error = await refused(f, Credentials(ticket=tickets[1].value))
    assert error.code is ErrorCode.RATE_LIMITED
    f.now += 10
    third = await guest.ticket()
    f.file.write_text(f.file.read_text().replace("connections = 2", ""))
    f.keys.reload()
    await f.enter(Credentials(ticket=third.value))


async def test_limits_that_change_while_somebody_comes_hold_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = Fixture(tmp_path)
    real = f.accounts.connect

    async def connect(known: Principal) -> Account | None:
        connected = await real(known)
        with f.file.open("a") as file:
            file.write("messages_per_second = 1\n")
        f.keys.reload()
        return connected

    monkeypatch.setattr(f.accounts, "connect", connect)
    guest = await f.enter(Credentials(f.other))
    assert [guest.take(10) for _ in range(3)] == [0.0, 0.0, pytest.approx(1.0)]


async def test_a_name_with_another_key(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    ended: list[str] = []
    guest = await f.enter(Credentials(f.key))
    guest.on_withdrawn = partial(ended.append, "ada")
    f.file.write_text("")
    add(f.file, "ada", ["chat"])
    f.keys.reload()
    assert ended == ["ada"]


async def test_a_key_may_be_withdrawn_before_anybody_wants_to_be_told(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    await f.enter(Credentials(f.key))
    f.file.write_text("")
    f.keys.reload()
    assert told(await refused(f, Credentials(f.key))) == NOBODY


async def test_who_has_shown_no_key_is_not_looked_at_when_keys_change(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    await f.enter(Credentials(SIGNER.token()))
    assert f.door._with_keys == {guest}
    guest.release()
    assert not f.door._with_keys


async def test_another_token_has_to_be_for_the_same_route(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(SIGNER.token(routes=["chat"])))
    with pytest.raises(Refused) as error:
        await guest.refresh(SIGNER.token(routes=["games"]))
    assert told(error.value) == NOT_HERE
    await guest.refresh(SIGNER.token(routes=["games", "chat"]))


async def test_who_has_left_while_another_token_was_checked_is_not_kept(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    coming = asyncio.create_task(guest.refresh(f.key))
    guest.release()
    await coming
    assert not f.door._with_keys


async def test_who_has_left_keeps_no_connection(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))

    def end() -> None:
        """Of a connection."""

    guest.on_withdrawn, kept = end, weakref.ref(end)
    del end
    guest.release()
    assert kept() is None


async def test_only_so_many_of_one_principal(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guests = [await f.enter(Credentials(f.key), address=f"198.51.100.{n}") for n in range(3)]
    error = await refused(f, Credentials(f.key), address="198.51.100.9")
    text = "You have reached your limit of connections."
    assert told(error) == (ErrorCode.RATE_LIMITED, text, 1.0)
    await f.enter(Credentials(f.other), address="198.51.100.9")
    for _ in range(2):
        guests[0].release()
    await f.enter(Credentials(f.key), address="198.51.100.9")
    assert (await refused(f, Credentials(f.key))).code is ErrorCode.RATE_LIMITED


async def test_only_so_many_from_one_address_but_for_this_machine(tmp_path: Path) -> None:
    f = Fixture(tmp_path, handshakes_per_second=100.0)
    too_many = (ErrorCode.RATE_LIMITED, "Too many connections from your address.", 1.0)
    guests = [await f.enter(Credentials()) for _ in range(5)]
    with capture_logs() as logs:
        assert told(await refused(f, Credentials())) == too_many
    assert logs == [line("too many connections from one address")]
    await f.enter(Credentials(), address="198.51.100.9")
    guests[0].release()
    await f.enter(Credentials())
    assert told(await refused(f, Credentials())) == too_many, "the others are still there"
    for _ in range(100):
        await f.enter(Credentials(), address="127.0.0.1")


async def test_nothing_is_kept_of_addresses_that_have_gone(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guests = [await f.enter(Credentials()) for _ in range(2)]
    assert f.door._connections
    for guest in guests:
        guest.release()
    assert not f.door._connections
    assert (len(f.door._of_addresses), len(f.door._of_sites)) == (1, 1)
    f.now += BURST_SECONDS
    assert (len(f.door._of_addresses), len(f.door._of_sites)) == (0, 0)


async def test_a_flood_of_refusals_is_not_logged_line_by_line(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    with capture_logs() as logs:
        for _ in range(2 * REFUSALS_A_MINUTE):
            with pytest.raises(Refused):
                await guest.refresh("x")
        with pytest.raises(Refused):
            await guest.refresh("sgk_x")
    unknown = line("a token: no JSON Web Token")
    assert logs == [unknown] * REFUSALS_A_MINUTE + [line("an unknown key")]


async def test_what_one_address_does_is_not_felt_by_others(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    with capture_logs() as logs:
        for number in range(100):
            with contextlib.suppress(Refused):
                (await f.enter(Credentials(), address=f"2001:db8::{number:x}")).release()
        for number in range(15):
            (await f.enter(Credentials(f.key), address=f"198.51.100.{number}")).release()
    assert {line["why"] for line in logs} == {"too many handshakes from one address"}


@pytest.mark.parametrize(
    ("addresses", "most", "where", "wait"),
    [
        ([ADDRESS], 5, "one address", 0.4),
        ([f"2001:db8:0:{number:x}::1" for number in range(20)], 10, "one network", 0.2),
    ],
    ids=["a quarter", "half"],
)
async def test_one_address_has_a_quarter_of_all_handshakes_and_one_site_half(
    addresses: list[str], most: int, where: str, wait: float, tmp_path: Path
) -> None:
    """Of ten in a second, and twenty at once."""
    f = Fixture(tmp_path)
    coming = itertools.cycle(addresses)
    for _ in range(most):
        (await f.enter(Credentials(), address=next(coming))).release()
    last = next(coming)
    with capture_logs() as logs:
        error = await refused(f, Credentials(), address=last)
    text = "Too many new connections; try again later."
    assert told(error) == (ErrorCode.RATE_LIMITED, text, pytest.approx(wait))
    assert logs == [line(f"too many handshakes from {where}", last)]
    f.now += wait + 0.01
    await f.enter(Credentials(), address=last)


async def test_requests_of_somebody_known_are_no_handshakes(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    for _ in range(100):
        guest = await f.enter(Credentials(f.key), address=ADDRESS)
        guest.refund()
        guest.refund()  # which does nothing more
        guest.release()
    for _ in range(5):
        (await f.enter(Credentials(f.key), address=ADDRESS)).release()
    assert told(await refused(f, Credentials(f.key), address=ADDRESS))[0] is ErrorCode.RATE_LIMITED


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([f"2001:db8:0:{number:x}::1" for number in range(9)], " from one network"),
        ([f"2001:db8:{number:x}::1" for number in range(1, 20)], ""),
    ],
    ids=["site", "all"],
)
async def test_who_is_refused_for_others_keeps_what_its_own_address_may_have(
    others: list[str], why: str, tmp_path: Path
) -> None:
    f = Fixture(tmp_path)
    address = "2001:db8:0:ffff::1"
    for each in (address, *others):
        (await f.enter(Credentials(), address=each)).release()
    with capture_logs() as logs:
        refusals = [await refused(f, Credentials(), address=address) for _ in range(20)]
    assert logs == [line(f"too many handshakes{why}", address)] * 20
    wait = refusals[0].retry_after or 0.0
    assert [error.retry_after for error in refusals] == [pytest.approx(wait)] * 20
    f.now += wait + 0.01
    await f.enter(Credentials(), address=address)


@pytest.mark.parametrize(
    ("networks", "sites"),
    [
        ([f"2001:db8::{number:x}:0:0:0:1" for number in range(256)], 1),
        ([f"2001:db8:0:{number:x}::1" for number in range(5_000)], 1),
        ([f"192.0.2.{number}" for number in range(4)], 4),
        ([f"2001:db8:{number:x}::1" for number in range(8)], 8),
        ([f"192.0.2.{number}" for number in range(100)], 100),
    ],
    ids=["a-56", "a-48", "four-addresses", "eight-48s", "a-hundred-addresses"],
)
async def test_a_flood_of_handshakes_shuts_nobody_out_who_comes_now_and_then(
    networks: list[str], sites: int, tmp_path: Path
) -> None:
    """A hundred may come in a second; ten thousand do, and 20 newcomers, and an office's ten."""
    f = Fixture(tmp_path, handshakes_per_second=100.0)
    let_in = Counter[str]()
    assert len({network_of(network, SITE_BITS) for network in networks}) == sites

    async def arrive(kind: str, address: str) -> None:
        with contextlib.suppress(Refused):
            (await f.enter(Credentials(), address=address)).release()
            let_in[kind] += 1

    flood, seconds = itertools.cycle(networks), 5
    for tick in range(100 * seconds):
        f.now += 0.01
        for _ in range(100):
            await arrive("flood", next(flood))
        if tick % 5 == 0:
            await arrive("newcomer", f"198.51.{tick // 100}.{tick % 100}")
        if tick % 10 == 0:
            await arrive("office", "203.0.113.9")
    assert let_in["newcomer"] == 20 * seconds
    assert let_in["office"] >= (10 * seconds if sites == 1 else seconds // 2), let_in
    assert let_in.total() <= 100 * seconds + 200


@pytest.mark.parametrize(
    ("address", "network", "site"),
    [
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("::ffff:198.51.100.1", "198.51.100.1", "198.51.100.1"),
        ("198.51.100.1", "198.51.100.1", "198.51.100.1"),
        ("::1", "::1", "::1"),
        ("unknown", "unknown", "unknown"),
        ("x::/64", "x::/64", "x::/64"),
    ],
)
def test_networks(address: str, network: str, site: str) -> None:
    assert network_of(address) == network
    assert network_of(address, SITE_BITS) == site


async def test_only_so_many_in_a_second(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    for number in range(20):
        await f.enter(Credentials(), address=f"198.51.100.{number}")
    with capture_logs() as logs:
        error = await refused(f, Credentials())
    wait = pytest.approx(0.1)
    assert told(error) == (
        ErrorCode.RATE_LIMITED,
        "Too many new connections; try again later.",
        wait,
    )
    assert logs == [line("too many handshakes")]
    f.now += 0.1
    await f.enter(Credentials())


async def test_messages_and_tickets_count(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    assert [guest.take(10) for _ in range(19)] == [0.0] * 19
    await guest.ticket()
    assert guest.take(10) > 0
    with pytest.raises(Refused) as error:
        await guest.ticket()
    text = "Rate limit exceeded; try again later."
    assert told(error.value) == (ErrorCode.RATE_LIMITED, text, pytest.approx(0.1))


async def test_a_ticket_has_no_bytes(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    assert guest.take(2 * int(LIMITS.bytes_per_second)) == 0
    assert guest.take(1) > 0
    await guest.ticket()


async def test_who_has_left_while_it_was_looked_at_is_not_counted(tmp_path: Path) -> None:
    f = Fixture(tmp_path)
    guest = f.door.arrive(ADDRESS)
    coming = asyncio.create_task(guest.identify(Credentials(f.key), route="chat"))
    guest.release()
    with pytest.raises(Refused):
        await coming
    assert len(f.accounts) == 0


async def test_keys_that_can_not_be_had_are_nobodys_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = Fixture(tmp_path)

    async def check(_token: str) -> None:
        raise KeysUnavailable("the keys can't be fetched")

    monkeypatch.setattr(f.tokens, "check", check)
    error = await refused(f, Credentials("x.y.z"))
    text = "Tokens can't be checked at the moment."
    assert told(error) == (ErrorCode.UNAVAILABLE, text, 5.0)


async def test_tickets_that_can_not_be_kept_are_nobodys_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = Fixture(tmp_path)
    guest = await f.enter(Credentials(f.key))
    ticket = await guest.ticket()

    async def is_away(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch, capture_logs() as logs:
        for name in ("add_ticket", "take_ticket"):
            patch.setattr(f.tickets, name, is_away)
        with pytest.raises(Refused) as issued:
            await guest.ticket()
        shown = await refused(f, Credentials(ticket=ticket.value))
    unavailable = (ErrorCode.UNAVAILABLE, "Tickets can't be stored at the moment.", WAIT_SECONDS)
    assert told(issued.value) == told(shown) == unavailable
    assert logs == [], "nobody is suspected"
    assert (await f.enter(Credentials(ticket=ticket.value))).principal == "key:ada"
