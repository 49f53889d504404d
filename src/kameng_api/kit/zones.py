"""The names of time zones."""

from functools import cache
from zoneinfo import available_timezones


def is_zone(name: str) -> bool:
    """Whether it names a time zone that this machine knows, such as `Asia/Shanghai`."""
    return name in _known()


@cache
def _known() -> frozenset[str]:
    """To look them up is to open six hundred files."""
    return frozenset(available_timezones())
