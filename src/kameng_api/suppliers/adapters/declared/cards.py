"""Card codes (卡密) out of an answer: found, decrypted by a cipher of the menu, and split into code, PIN and expiry."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from kameng_api.suppliers.adapters.declared import form
from kameng_api.suppliers.adapters.declared.expressions import Pick, Unreadable, compile_expression, word
from kameng_api.suppliers.adapters.declared.spelling import read_json
from kameng_api.suppliers.adapters.declared.templates import ALWAYS, Scene, compile_template
from kameng_api.suppliers.port import Code

_KEY_BYTES: Final[Mapping[str, int]] = {"aes-256": 32, "aes-128": 16}
_DATES: Final[Mapping[str, str]] = {
    "yyyy-MM-dd": "%Y-%m-%d",
    "yyyyMMdd": "%Y%m%d",
    "yyyy-MM-dd HH:mm:ss": "%Y-%m-%d %H:%M:%S",
    "yyyy/MM/dd": "%Y/%m/%d",
}
Open = Callable[[str, Scene], str]

ReadCards = Callable[[Any, Scene], tuple[Code, ...]]
"""`(order, scene) -> codes`, empty where there are none. Raises Unreadable."""


def compile_cards(cards: form.Cards, settings: frozenset[str]) -> ReadCards:
    """Raises ValueError, in words for whoever wrote the file."""
    at, code = compile_expression(cards.at), compile_expression(cards.code)
    pin = None if cards.pin is None else compile_expression(cards.pin)
    expires = None if cards.expires_on is None else compile_expression(cards.expires_on)
    opened = _opener(cards, settings)

    def read(order: Any, scene: Scene) -> tuple[Code, ...]:
        found = at(order)
        if not found:
            return ()
        if cards.covers == "list" and isinstance(found, str):
            found = read_json((opened(found, scene) if opened else found).encode(), "utf-8")
        if not isinstance(found, list):
            raise Unreadable("cards are not a list")
        return tuple([one(card, scene) for card in found])

    def one(card: Any, scene: Scene) -> Code:
        text = value(code, card, scene)
        if not text:
            raise Unreadable("a card without a code")
        return Code(text, value(pin, card, scene) or None, _expiry(value(expires, card, None), cards))

    def value(pick: Pick | None, card: Any, scene: Scene | None) -> str:
        found = word(pick(card)) if pick is not None else None
        if not found:
            return ""
        return opened(found, scene) if opened and scene is not None and cards.covers == "each" else found

    return read


def _expiry(text: str, cards: form.Cards) -> Any:
    if text in cards.no_expiry:
        return None
    try:
        return datetime.strptime(text, _DATES[cards.expires_as]).date()  # noqa: DTZ007  a day on a card has no zone
    except ValueError as error:
        raise Unreadable("an expiry date is not a date") from error


# ---- ciphers ---------------------------------------------------------------------------------------------------------------


def _opener(cards: form.Cards, settings: frozenset[str]) -> Open | None:
    if cards.cipher == "none":
        return None
    cipher = _cipher(cards, settings)

    def opened(text: str, scene: Scene) -> str:
        try:
            kept = "".join(text.split())  # MIME base64 breaks its lines
            sealed = bytes.fromhex(kept) if cards.text_as == "hex" else base64.b64decode(kept, validate=True)
            decryptor, padding = cipher(scene).decryptor(), PKCS7(128).unpadder()
            plain = padding.update(decryptor.update(sealed) + decryptor.finalize()) + padding.finalize()
            return plain.decode()
        except (ValueError, binascii.Error) as error:
            raise Unreadable("a card that does not decrypt") from error

    return opened


def open_text(cards: form.Cards, settings: frozenset[str], text: str, scene: Scene) -> str:
    """One encrypted text in clear. Raises Unreadable."""
    opened = _opener(cards, settings)
    return text if opened is None else opened(text, scene)


def compile_sealer(cards: form.Cards, settings: frozenset[str]) -> Open | None:
    """The inverse of the cipher, for examples with invented cards; None where cards are not encrypted."""
    if cards.cipher == "none":
        return None
    cipher = _cipher(cards, settings)

    def sealed(text: str, scene: Scene) -> str:
        encryptor, padding = cipher(scene).encryptor(), PKCS7(128).padder()
        padded = padding.update(text.encode()) + padding.finalize()
        closed = encryptor.update(padded) + encryptor.finalize()
        return closed.hex() if cards.text_as == "hex" else base64.b64encode(closed).decode()

    return sealed


def _cipher(cards: form.Cards, settings: frozenset[str]) -> Callable[[Scene], Cipher[Any]]:
    algorithm, mode = cards.cipher.rsplit("-", 1)
    size = _KEY_BYTES[algorithm]
    assert cards.key is not None
    key = compile_template(cards.key, ALWAYS, settings)
    iv = None if cards.iv is None else compile_template(cards.iv, ALWAYS, settings)

    def made(scene: Scene) -> Cipher[Any]:
        secret = _key(key(scene), cards.key_as)
        if len(secret) != size:
            raise Unreadable(f"the card key has not {size} bytes")
        if mode == "cbc":
            assert iv is not None
            return Cipher(algorithms.AES(secret), modes.CBC(iv(scene).encode()))
        # ECB has no integrity and shows equal blocks: it is what these vendors use, and only their own cards are read with it.
        return Cipher(algorithms.AES(secret), modes.ECB())  # noqa: S305

    return made


def _key(text: str, key_as: str) -> bytes:
    try:
        match key_as:
            case "hex":
                return bytes.fromhex(text)
            case "base64":
                return base64.b64decode(text, validate=True)
            case "md5_hex":
                return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().encode()
            case _:
                return text.encode()
    except (ValueError, binascii.Error) as error:
        raise Unreadable("the card key is not what the file says") from error
