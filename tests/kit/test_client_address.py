"""Who is calling, when a proxy may stand between and anybody may lie."""

from ipaddress import ip_address, ip_network

import pytest

from kameng_api.kit.client_address import NOWHERE, client_address, neighbourhood, parse_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", [b"1.2.3.4"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"6.6.6.6", b"1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"1.2.3.4, 10.0.0.9,10.1.1.1"], "1.2.3.4"),
        ("10.0.0.1", [b"10.0.0.9"], "10.0.0.9"),
        ("10.0.0.1", [b"1.2.3.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"1.2.3.4:80"], "10.0.0.1"),
        ("10.0.0.1", [b"1.2.3.4,"], "10.0.0.1"),
        ("::ffff:10.0.0.1", [b"::ffff:1.2.3.4"], "1.2.3.4"),
        ("fd00::1", [b"2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", [b", ".join([b"1.2.3.4"] + [b"10.0.0.2"] * 100)], "10.0.0.2"),
    ],
)
def test_the_nearest_hop_that_is_not_ours_is_the_caller(peer: str, forwarded: list[bytes], caller: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == ip_address(caller)


def test_without_proxies_the_header_says_nothing() -> None:
    assert client_address("10.0.0.1", [b"1.2.3.4"], ()) == ip_address("10.0.0.1")


@pytest.mark.parametrize("peer", [None, "", "/run/socket", "testclient"])
def test_a_peer_without_an_address_is_nowhere(peer: str | None) -> None:
    assert client_address(peer, [b"1.2.3.4"], PROXIES) == NOWHERE


def test_odd_spellings_are_no_address() -> None:
    for text in ("fe80::1%eth0", "010.0.0.1", "1.2.3", "0x7f.0.0.1", "[::1]", " 1.2.3.4"):
        assert parse_address(text) is None


def test_a_neighbourhood_is_what_one_caller_owns() -> None:
    assert neighbourhood(ip_address("1.2.3.4")) == "1.2.3.4"
    assert neighbourhood(ip_address("2001:db8:0:1::5")) == neighbourhood(ip_address("2001:db8:0:1:ffff::")) == "2001:db8:0:1::/64"
    assert neighbourhood(ip_address("2001:db8:0:2::5")) != "2001:db8:0:1::/64"
