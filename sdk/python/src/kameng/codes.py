"""Opens the card codes of an order with the merchant's delivery key; they leave the house in no other form."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kameng.errors import NotGenuine
from kameng.models import CardCode, CodesEnvelope

DeliveryKey = str | Mapping[str, str]
_ALGORITHM: Final = "AEAD_AES_256_GCM"


def open_codes(envelope: CodesEnvelope, delivery_key: DeliveryKey, order_id: str) -> tuple[CardCode, ...]:
    """`delivery_key`: 32 ASCII characters as the operator gave them, or several by their `kid` while they are rotated.

    Raises NotGenuine when the envelope is another order's, was changed, or is under a key that is not given.
    """
    if envelope.algorithm != _ALGORITHM:
        raise NotGenuine(f"unknown algorithm {envelope.algorithm!r}: a newer client is needed")
    if envelope.associated_data != f"order_codes:{order_id}":
        raise NotGenuine("these codes belong to another order")
    key = delivery_key if isinstance(delivery_key, str) else delivery_key.get(envelope.kid)
    if key is None:
        raise NotGenuine(f"sealed under the delivery key {envelope.kid}, which is not given")
    try:
        sealed = base64.b64decode(envelope.ciphertext, validate=True)
        plain = AESGCM(key.encode("ascii")).decrypt(envelope.nonce.encode("ascii"), sealed, envelope.associated_data.encode("ascii"))
        found: Any = json.loads(plain)
    except (InvalidTag, ValueError):
        raise NotGenuine("the codes cannot be opened with this delivery key") from None
    return tuple(CardCode.read(card) for card in found)
