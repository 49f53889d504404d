"""Which addresses a stranger's URL may make us dial: our own table, because the standard library's answer changes
between patch versions.

`ipaddress.is_global` is true for multicast, 6to4, NAT64 and others that lead back inside, so nothing here asks it.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

MAX_URL_CHARS = 2048
PUBLIC_PORTS = frozenset({443, 8443})

# IANA special-purpose registries, plus what is deprecated but still routed by somebody.
_REFUSED_V4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux dials 0.0.0.0 as loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; also cloud metadata (100.100.100.200)
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; cloud metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relay
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "168.63.129.16/32",  # Azure's host agent, a public address only by its number
    )
]
# Only global unicast is ever public, and inside it these are not. Loopback, mapped IPv4, fc00::/7, fe80::/10, ff00::/8
# and 64:ff9b::/96 lie outside it.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_REFUSED_V6 = [
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID, benchmarking, protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",
        "3fff::/20",
    )
]
_LOOPBACK_V4 = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = IPv6Address("::1")
_HOST_LABELS = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC_LABEL = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_INSIDE_SUFFIXES = (
    ".localhost",
    ".localdomain",
    ".local",
    ".internal",
    ".intranet",
    ".lan",
    ".corp",
    ".svc",
    ".arpa",
    ".onion",
)


class UrlRefused(ValueError):
    """A URL we will not call; the text says why and may be shown to whoever registered it."""


@lru_cache(maxsize=8192)
def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Whether `address` is an ordinary host of the public internet. Addresses that wrap another (mapped, NAT64, 6to4,
    Teredo) are not.
    """
    ip = ip_address(address) if isinstance(address, str) else address
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _REFUSED_V4)
    if ip.scope_id is not None or ip not in _GLOBAL_UNICAST:
        return False
    return not any(ip in network for network in _REFUSED_V6)


@lru_cache(maxsize=8192)
def is_loopback(address: str | IPv4Address | IPv6Address) -> bool:
    """127.0.0.0/8 or ::1, spelt plainly: the only inside addresses a development setting may allow."""
    ip = ip_address(address) if isinstance(address, str) else address
    return ip in _LOOPBACK_V4 if isinstance(ip, IPv4Address) else ip == _LOOPBACK_V6 and ip.scope_id is None


@lru_cache(maxsize=8192)
def check_url(url: str, *, development: bool) -> None:
    """Refuse a URL by its spelling alone; raises `UrlRefused`. What the name resolves to is checked when it is dialled.

    https on 443 or 8443, a name and not an address, no userinfo, no fragment, at most 2,048 characters. `development`
    also allows http or https to a loopback address or `localhost`, on any port.
    """
    if len(url) > MAX_URL_CHARS:
        raise UrlRefused(f"longer than {MAX_URL_CHARS} characters")
    if not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        raise UrlRefused("only printable ASCII is allowed; write other names in their xn-- form")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UrlRefused("not a URL") from None
    if "@" in parts.netloc:
        raise UrlRefused("a user name or password in the URL is not allowed")
    if "#" in url:
        raise UrlRefused("a fragment is not allowed")
    if development and parts.scheme in {"http", "https"} and _is_loopback_host(host) and port != 0:
        return
    if parts.scheme != "https":
        raise UrlRefused("only https is allowed")
    if parts.netloc.endswith(":") or (port or 443) not in PUBLIC_PORTS or port == 0:
        raise UrlRefused("only ports 443 and 8443 are allowed")
    name = host.removesuffix(".")
    if "[" in parts.netloc or _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        raise UrlRefused("an IP address is not allowed; use a host name")
    if len(name) > 253 or not _HOST_LABELS.fullmatch(name):
        raise UrlRefused("not a public host name")
    if f".{name}".endswith(_INSIDE_SUFFIXES):
        raise UrlRefused("not a public host name")


def _is_loopback_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return is_loopback(host)
    except ValueError:
        return False
