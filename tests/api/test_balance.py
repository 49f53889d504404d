"""Balance, fund flow and play money, through signed requests."""

from tests.factories.client import Client


async def test_a_signed_request_reads_the_balance(client: Client) -> None:
    answer = await client.get("/v1/balance")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "currency": "CNY", "available": "10000.0000", "held": "0.0000", "credit_limit": "0.0000", "deposit": "0.0000",
        "frozen": "0.0000",
    }  # fmt: skip
