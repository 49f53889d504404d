"""Where a channel's settings lead: secrets that were given for one address are not carried to another, and some addresses are no supplier's. Pure.

Suppliers may stand in our own network (a self-hosted vendor, a simulator), so loopback and private addresses are taken.
"""

import socket
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from kameng_api.kit.errors import FieldError

_NO_SUPPLIER: Final = (
    IPv4Network("169.254.0.0/16"),  # link-local; the metadata of most clouds
    IPv4Network("100.100.100.200/32"),  # Alibaba Cloud's metadata
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::254/128"),  # metadata of AWS
    IPv6Network("fd20:ce::254/128"),  # and of Google Cloud
)
_METADATA_NAMES: Final = frozenset({"metadata", "metadata.google.internal", "metadata.tencentyun.com", "instance-data", "instance-data.ec2.internal"})
_WRAPPED_V4: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
_PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, str, int | None]


def check_addresses(settings: Mapping[str, Any]) -> list[FieldError]:
    """Settings whose URL names a link-local or metadata address, however it is spelt. A name is judged as a name: nothing is resolved here."""
    return [
        FieldError(pointer, "not_allowed", "a link-local or metadata address is no supplier's")
        for pointer, url in _urls(settings)
        if _leads_to_metadata(url)
    ]


def check_kept_secrets(old: Mapping[str, Any], new: Mapping[str, Any], said: Collection[str], secrets: Collection[str]) -> list[FieldError]:
    """Secrets of `old` that `said` does not name although an address of `new` is another one than that of `old`.

    Else whoever may change an address could have the sealed secrets sent to it. An address is another with another scheme, host or port.
    """
    before = {pointer: _origin(url) for pointer, url in _urls(old)}
    moved = [pointer for pointer, url in _urls(new) if before.get(pointer) != _origin(url)]
    if not moved:
        return []
    detail = f"must be given anew, because {moved[0].rpartition('/')[2]} leads to another host"
    return [FieldError(f"/settings/{name}", "required", detail) for name in sorted(secrets) if old.get(name) and name not in said]


def _urls(value: Any, pointer: str = "/settings") -> Iterator[tuple[str, str]]:
    """(JSON pointer, text) of every value that is a URL, at whatever depth."""
    if isinstance(value, str) and value.strip().lower().startswith(("http://", "https://")):
        yield pointer, value.strip()
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _urls(inner, f"{pointer}/{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _urls(inner, f"{pointer}/{place}")


def _origin(url: str) -> Origin:
    """What is dialled. What cannot be read is an origin of its own."""
    try:
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return parts.scheme, user, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return url, "", "", None


def _leads_to_metadata(url: str) -> bool:
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False  # nothing can be dialled
    if host in _METADATA_NAMES:
        return True
    address = _address(host)
    return address is not None and any(address.version == network.version and address in network for network in _NO_SUPPLIER)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host spells: plainly, wrapped in IPv6, or as one number and the like, which resolvers read too."""
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return None
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is not None:
            return inner
        if any(found in network for network in _WRAPPED_V4):
            return IPv4Address(int(found) & 0xFFFF_FFFF)
    return found
