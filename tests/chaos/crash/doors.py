"""The story of a door: a merchant's software that speaks another platform's protocol buys, asks, and is called back, whoever dies meanwhile."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from tests.chaos.crash.scenarios import PLAIN, Story, Told, insist, until_true
from tests.chaos.crash.stage import Lane

from kameng_api.kit.ids import public_id

_KEY: Final = "key-for-the-door"
_DUPLICATE: Final = "已经存在相同商户订单号的订单"
_TOLD: Final = """
SELECT count(*) FROM webhook_deliveries d JOIN events e USING (book_id, event_id) JOIN orders o ON o.book_id = e.book_id AND o.order_id = e.order_id
WHERE o.merchant_order_no = $1 AND d.notify_url LIKE 'door:%' AND d.state = 'delivered'
"""


def _signed(fields: Mapping[str, str]) -> dict[str, str]:
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields)) + f"&apikey={_KEY}"
    return {**fields, "sign": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().upper()}


async def _post(lane: Lane, endpoint: str, **fields: str) -> Any:
    form = _signed({"userid": lane.name, **fields})
    return (await insist(lambda: lane.client.http.post(f"/doors/yrapi/yrapi.php/index/{endpoint}", data=form))).json()


async def _doored(lane: Lane, told: Told) -> None:
    """As the protocol's clients do: what got no certain answer is sent again under its number; the duplicate text means that it stands."""
    body = {"environment": "test", "door": "yrapi", "account": lane.name, "secrets": {"api_key": _KEY}}
    url = f"/admin/v1/merchants/{public_id('mer', lane.merchant.merchant_id)}/door-accounts"
    headers = {"Authorization": f"Bearer {lane.operator}"}
    await insist(lambda: lane.client.http.post(url, json=body, headers=headers), 201, 409)  # 409: it was made before
    lane.orders += 1
    number, receiver = f"PO-{lane.orders}", f"{lane.name}-door"
    told.ends[number] = "succeeded"
    notify = f"{lane.world.receiver.url}/{receiver}"
    answer = await _post(lane, "recharge", out_trade_num=number, product_id="phone", mobile=PLAIN, notify_url=notify)
    assert answer["errno"] == 0 or answer["errmsg"] == _DUPLICATE, answer
    await until_true(lane, _TOLD, number)
    rows = (await _post(lane, "check", out_trade_nums=number))["data"]
    assert [row["state"] for row in rows] == [1], rows
    heard = [call for call in lane.world.receiver.told.get(receiver, ()) if call["out_trade_num"] == number]
    assert heard and {call["state"] for call in heard} == {"1"}, heard
    assert all(_signed({name: value for name, value in call.items() if name != "sign"}) == call for call in heard), "a callback nobody signed"


STORIES: Final = (Story("doored", _doored),)
