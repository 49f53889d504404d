"""The supplier desk's call to the outside: is a connection well. No framework in here."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import SecretStr

from kameng_api.api.admin.connections import read_settings
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Channel
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.kit.http import build_client
from kameng_api.suppliers import registry
from kameng_api.suppliers.desk import probes
from kameng_api.suppliers.desk.addresses import check_kept_secrets
from kameng_api.suppliers.desk.forms import form_of, secrets_of
from kameng_api.suppliers.desk.probes import Report
from kameng_api.suppliers.port import Adapter
from kameng_api.suppliers.transport import Transport

_CONNECT_S: Final = 5.0
_STEP_S: Final = 15.0


async def probe_settings(adapter: str, environment: str, given: Mapping[str, Any], timeout_s: float) -> Report:
    """Try settings that nobody has saved. Raises Invalid for those that do not fit the adapter."""
    plain = read_settings(adapter, dict(given))
    found = registry.get_adapter(adapter)
    if found.simulated and environment != "test":
        raise Invalid("a simulated supplier serves test channels only", errors=[FieldError("/environment", "not_allowed", "test")])
    settings = found.settings.model_validate(plain)
    secrets = [value.get_secret_value() for name in type(settings).model_fields if isinstance(value := getattr(settings, name), SecretStr)]
    client = build_client(max_connections=2, connect_timeout_s=_CONNECT_S, read_timeout_s=timeout_s, guard=False)
    try:
        send = Transport(client, longest_s=timeout_s).send
        return await probes.examine(lambda ear: found.connect(settings, ear), send, secrets=secrets, limit_s=min(timeout_s + 1, _STEP_S))
    finally:
        await client.aclose()


async def probe_channel(channel: Channel, keyring: Keyring, timeout_s: float) -> Report:
    """Try a channel as it is saved. Raises Invalid, where its adapter wants other settings by now."""
    given = orjson.loads(catalog.open_settings(keyring, channel))
    return await probe_settings(channel.adapter, channel.environment, given, timeout_s)


def merge_settings(channel: Channel, keyring: Keyring, changes: Mapping[str, Any]) -> bytes:
    """The sealed settings with some said anew, so that nobody must type a secret again.

    Raises Invalid, also where an address changes and a secret is not given with it: it would be sent there.
    """
    old: dict[str, Any] = orjson.loads(catalog.open_settings(keyring, channel))
    new = read_settings(channel.adapter, {**old, **changes})
    adapter = registry.get_adapter(channel.adapter)
    missing = check_kept_secrets({**_defaults(adapter), **old}, new, changes, secrets_of(adapter))
    if missing:
        raise Invalid("secrets are sent to the address they were given for: another host needs every secret anew", errors=missing)
    return orjson.dumps(new)


def _defaults(adapter: Adapter) -> dict[str, Any]:
    """Of settings that an adapter has got since the channel was saved: what nobody has changed has not moved."""
    return {one.name: one.default for one in form_of(adapter) if one.default is not None}
