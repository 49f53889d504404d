"""Who is calling: the peer of the socket, unless it is a proxy that we trust to name its own caller."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOWHERE: Address = ip_address("::")
"""A peer without an address (a unix socket): in nobody's allowlist, trusted by nobody."""

_MAX_HOPS = 32


@lru_cache(maxsize=8192)
def parse_address(text: str) -> Address | None:
    """An IPv4 or IPv6 address, an IPv4-mapped one as the IPv4 address it is; None for anything else, ports and zones included."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


@lru_cache(maxsize=8192)
def neighbourhood(address: Address) -> str:
    """Whom to count as one caller: an IPv4 address, or the /64 of an IPv6 address, whose owner has all of it."""
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


def is_inside(address: Address, networks: Sequence[Network]) -> bool:
    """Whether one of the networks holds the address."""
    return any(address in network for network in networks)


def client_address(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> Address:
    """The caller's address: the right-most hop of `X-Forwarded-For` that is not one of ours, if the peer is.

    `forwarded` holds the values of every such header, in order; a peer outside `trusted` can write there what it likes. Reading stops at the
    first hop that is no address: the last hop we understood counts.
    """
    address = parse_address(peer) if peer else None
    if address is None:
        return NOWHERE
    if not trusted or not forwarded or not is_inside(address, trusted):
        return address
    hops = b",".join(forwarded).decode("latin-1").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
    for hop in reversed(hops):
        named = parse_address(hop.strip())
        if named is None:
            return address
        address = named
        if not is_inside(address, trusted):
            return address
    return address
