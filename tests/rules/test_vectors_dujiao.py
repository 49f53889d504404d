"""dujiao-next's signature, byte for byte, by the code that ships (source: its open API document, §2.2; computed vector)."""

from kameng_api.suppliers.adapters.dujiao import wire
from kameng_api.suppliers.port import Purchase

BODY = b'{"sku_id":1,"quantity":1,"downstream_order_no":"T1"}'


def test_the_signature_of_an_order() -> None:
    found = wire.sign("SECRET", "POST", "/api/v1/upstream/orders", "1767240000", BODY)
    assert found == "64e7a88e0a232d2a2f698415ada173a9d0868f55b3f934d771700d59cccfbdd9"


def test_the_headers_carry_the_same_signature() -> None:
    headers = wire.headers("KEY", "SECRET", "POST", "/api/v1/upstream/orders", 1767240000, BODY)
    assert headers["dujiao-next-signature"] == wire.sign("SECRET", "POST", "/api/v1/upstream/orders", "1767240000", BODY)
    assert headers["dujiao-next-timestamp"] == "1767240000" and headers["dujiao-next-api-key"] == "KEY"


def test_the_body_of_an_order_is_the_vectors_body() -> None:
    purchase = Purchase(reference="T1", product_code="1-1", product_type="card", units=1, currency="CNY", max_cost=10_0000)
    assert wire.order_body(purchase, "account") == BODY


def test_every_part_is_signed() -> None:
    signed = wire.sign("SECRET", "POST", "/api/v1/upstream/orders", "1767240000", BODY)
    others = (
        wire.sign("SECRET", "GET", "/api/v1/upstream/orders", "1767240000", BODY),
        wire.sign("SECRET", "POST", "/api/v1/upstream/order", "1767240000", BODY),
        wire.sign("SECRET", "POST", "/api/v1/upstream/orders", "1767240001", BODY),
        wire.sign("SECRET", "POST", "/api/v1/upstream/orders", "1767240000", BODY + b" "),
        wire.sign("SECRETS", "POST", "/api/v1/upstream/orders", "1767240000", BODY),
    )
    assert signed not in others
