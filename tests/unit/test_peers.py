"""How many connections an address may have that are no WebSockets."""

import pytest
from structlog.testing import capture_logs

from gateway.transports.peers import LINES_A_MINUTE, Peers
from gateway.transports.proxies import Proxies


def test_each_address_has_as_many_as_it_may() -> None:
    peers = Peers(2, lambda _address: False)
    first, second, none = (peers.enter("192.0.2.1") for _ in range(3))
    other = peers.enter("192.0.2.2")
    assert first
    assert second
    assert other
    assert none is None
    first()
    third = peers.enter("192.0.2.1")
    assert third
    assert peers.enter("192.0.2.1") is None
    for on_gone in (second, third, other):
        on_gone()
    assert not peers._there, "nothing is kept of who is gone"


def test_a_customer_of_a_network_has_one_address() -> None:
    peers = Peers(1, lambda _address: False)
    assert peers.enter("2001:db8::1")
    assert not peers.enter("2001:db8::2")
    assert peers.enter("2001:db8:0:1::1")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3"])
def test_proxies_and_this_machine_are_not_bounded(address: str) -> None:
    peers = Peers(1, Proxies(["10.0.0.0/8"]).trusts)
    assert all(peers.enter(address) for _ in range(5))


def test_a_flood_is_logged_in_a_few_lines() -> None:
    peers = Peers(0, lambda _address: False)
    with capture_logs() as logs:
        for _ in range(2 * LINES_A_MINUTE):
            peers.enter("192.0.2.1")
    assert len(logs) == LINES_A_MINUTE
    assert logs[0]["client"] == "192.0.2.1"
