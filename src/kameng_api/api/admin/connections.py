"""Reaching a supplier from the operator's desk: its settings, its wallet, and the simulator's knobs. No framework in here."""

from typing import Any

import httpx
import orjson
from pydantic import BaseModel, SecretStr, ValidationError

from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Channel
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Problem, StateConflict, Unavailable
from kameng_api.kit.http import Client, build_client
from kameng_api.suppliers import registry
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.desk.addresses import check_addresses
from kameng_api.suppliers.port import Wallet

_CONNECT_S = 5.0
_SIMULATOR = "simulator"


def read_settings(adapter: str, given: dict[str, Any]) -> dict[str, Any]:
    """A channel's settings as its adapter wants them, as JSON values with the secrets in them. Raises Invalid."""
    try:
        model = registry.get_adapter(adapter).settings
    except registry.AdapterNotFound as error:
        raise Invalid(str(error), errors=[FieldError("/adapter", "unknown_value", str(error))]) from None
    try:
        plain = _plain(model.model_validate(given))
    except ValidationError as error:
        wrong = [
            FieldError("/settings" + "".join(f"/{step}" for step in one["loc"]), one["type"], one["msg"])
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise Invalid("these are not the settings of this adapter", errors=wrong) from None
    if inside := check_addresses(plain):
        raise Invalid("these settings lead to an address that is no supplier's", errors=inside)
    return plain


def _plain(model: BaseModel) -> dict[str, Any]:
    dumped: dict[str, Any] = orjson.loads(
        orjson.dumps(
            model.model_dump(mode="python"),
            default=lambda value: value.get_secret_value() if isinstance(value, SecretStr) else str(value),
        )
    )
    return dumped


async def ask_wallet(channel: Channel, keyring: Keyring, timeout_s: float) -> Wallet:
    """What the supplier says that our wallet holds. Raises StateConflict when it cannot be asked, Unavailable."""
    client = build_client(max_connections=1, connect_timeout_s=_CONNECT_S, read_timeout_s=timeout_s, guard=False)
    try:
        supplier = Connections(keyring, client, base_url="", timeout_s=timeout_s).of(channel)
        if supplier.balance is None:
            raise StateConflict("this supplier does not tell the balance")
        return await supplier.balance()
    except Problem:
        raise
    except Exception as trouble:  # an adapter may raise what its vendor makes of a question that buys nothing
        raise Unavailable("the supplier did not answer") from trouble
    finally:
        await client.aclose()


async def simulator_knobs(
    channels: list[Channel], keyring: Keyring, token: SecretStr | None, supplier: str, knobs: dict[str, Any] | None
) -> dict[str, Any]:
    """Reads the knobs of a simulated supplier, or sets all of them. `supplier` is a channel's id or the account's own name.

    Raises NotFound, Invalid, StateConflict without a control token, Unavailable.
    """
    if token is None:
        raise StateConflict("set KAMENG_SIMULATOR_TOKEN to the control token of the simulator")
    client = build_client(max_connections=1, connect_timeout_s=_CONNECT_S, read_timeout_s=10.0, guard=False)
    headers = {"authorization": f"Bearer {token.get_secret_value()}"}
    try:
        for channel in channels:
            if channel.adapter != _SIMULATOR or channel.environment != "test":
                continue
            settings = orjson.loads(catalog.open_settings(keyring, channel))
            base = settings["base_url"]
            for account in (await _json(client, "GET", f"{base}/sim/suppliers", headers))["items"]:
                mine = account["app_key"] == settings["app_key"]
                if mine and supplier in (channel.channel_id, account["name"]):
                    address = f"{base}/sim/suppliers/{account['name']}/knobs"
                    content = None if knobs is None else orjson.dumps(knobs)
                    return await _json(client, "GET" if knobs is None else "PUT", address, headers, content)
    except (OSError, httpx.HTTPError, TimeoutError) as trouble:
        raise Unavailable("the simulator did not answer") from trouble
    finally:
        await client.aclose()
    raise NotFound("no test channel of the simulator has this name")


async def _json(client: Client, method: str, url: str, headers: dict[str, str], content: bytes | None = None) -> dict[str, Any]:
    answer = await client.exchange(method, url, headers=headers, content=content)
    if answer.status_code == 422:
        detail = str(orjson.loads(answer.content).get("detail", ""))[:500]
        raise Invalid("the simulator has no such knobs", errors=[FieldError("", "invalid", detail)])
    if answer.status_code != 200:
        raise Unavailable(f"the simulator answered {answer.status_code}")
    shown: dict[str, Any] = orjson.loads(answer.content)
    return shown
