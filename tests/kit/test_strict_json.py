"""One document, one meaning; everything that two parsers could read differently is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.kit.strict_json import MalformedJson, _read_slowly, loads

TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8) | st.sampled_from([":", "a:b", "\\", '"'])
INTEGERS = st.integers(-(10**20) + 1, 10**20 - 1)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)


@given(DOCUMENTS, st.booleans())
def test_honest_documents_are_read_exactly(document: Any, ascii_only: bool) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert same(loads(body), document)
    assert same(_read_slowly(body, 20), document)


@given(st.dictionaries(TEXT, DOCUMENTS, min_size=1, max_size=4), st.data())
def test_a_repeated_key_is_found_wherever_and_however_it_is_spelt(document: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(document)))
    spelt = json.dumps(key, ensure_ascii=data.draw(st.booleans()))
    if data.draw(st.booleans()):
        spelt = '"' + "".join(f"\\u{unit:04x}" for unit in _utf16(key)) + '"'
    pairs = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in document.items()]
    pairs.insert(data.draw(st.integers(0, len(pairs))), f"{spelt}:{json.dumps(data.draw(DOCUMENTS))}")
    body = "{" + ",".join(pairs) + "}"
    for wrapped in (body, f"[{body}]", f'{{"a":[1,{body}]}}'):
        with pytest.raises(MalformedJson, match="twice"):
            loads(wrapped.encode())


def _utf16(text: str) -> list[int]:
    raw = text.encode("utf-16-be")
    return [int.from_bytes(raw[index : index + 2]) for index in range(0, len(raw), 2)]


@pytest.mark.parametrize(
    ("body", "words", "pointer"),
    [
        (b"", "Expecting value", None),
        (b"   ", "Expecting value", None),
        (b"{} {}", "Extra data", None),
        (b"{}x", "Extra data", None),
        (b"{'a':1}", "Expecting property name", None),
        (b'{"a":1,}', "at character", None),
        (b'{"a":01}', "at character", None),
        (b'{"a":.5}', "at character", None),
        (b'{"a":+1}', "at character", None),
        (b"\xef\xbb\xbf{}", "BOM", None),
        ("{}".encode("utf-16"), "UTF-8", None),
        ("{}".encode("utf-16-le"), "at character", None),
        (b'{"a":"\xff"}', "UTF-8", None),
        (b'{"a":"\xed\xa0\x80"}', "UTF-8", None),
        (b'{"a":"\xc0\x80"}', "UTF-8", None),
        (b'{"a":"\n"}', "control character", None),
        (b'{"a":NaN}', "NaN", None),
        (b'{"a":Infinity}', "Infinity", None),
        (b'{"a":-Infinity}', "Infinity", None),
        (b'{"a":1e400}', "too large", "/a"),
        (b'{"a":[0,{"b/c~":"\\u0000"}]}', "U\\+0000", "/a/1/b~1c~0"),
        (b'{"a\\u0000":1}', "U\\+0000", ""),
        (b'{"a":"\\ud83d"}', "surrogate", "/a"),
        (b'{"a":"\\udc00\\ud83d"}', "surrogate", "/a"),
        (b'{"\\ud800":1}', "surrogate", ""),
        (b'{"a":123456789012345678901}', "20 digits", "/a"),
        (b'{"a":-123456789012345678901}', "20 digits", "/a"),
        (b'{"a":' + b"9" * 5000 + b"}", "20 digits", "/a"),
        (b'{"a":1,"b":{"a":1,"c":2,"a":3}}', "twice", "/b/a"),
        (b'{"a":1,"\\u0061":2}', "twice", "/a"),
        (b'{"a":"x:y","a":"x"}', "twice", "/a"),
        (b"[" * 100_000, "deeper", None),
        (b'{"a":' * 100_000, "deeper", None),
    ],
)
def test_what_is_refused_and_where(body: bytes, words: str, pointer: str | None) -> None:
    with pytest.raises(MalformedJson, match=words) as caught:
        loads(body)
    assert caught.value.code == "malformed_json"
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k":', "}")])
def test_the_twentieth_level_is_read_and_the_next_is_not(opening: str, closing: str) -> None:
    loads((opening * 20 + "1" + closing * 20).encode())
    for leaf in ("1", '"\\u0041"', "1.5", "[]"):
        with pytest.raises(MalformedJson, match="deeper than 20"):
            loads((opening * 21 + leaf + closing * 21).encode())
    with pytest.raises(MalformedJson, match="deeper than 3"):
        loads((opening * 4 + "1" + closing * 4).encode(), max_depth=3)


@pytest.mark.parametrize("text", ["98.5", "98.0", "1e2", "-0.0", "1E0"])
def test_numbers_with_a_fraction_or_exponent_stay_floats(text: str) -> None:
    assert type(loads(f'{{"price":{text}}}'.encode())["price"]) is float


@pytest.mark.parametrize("digits", ["18446744073709551616", "99999999999999999999", "-99999999999999999999", "9223372036854775808"])
def test_long_integers_lose_no_digit(digits: str) -> None:
    assert loads(digits.encode()) == int(digits)
    assert type(loads(digits.encode())) is int


@given(st.binary(max_size=60))
def test_both_readers_give_one_verdict_on_noise(body: bytes) -> None:
    def verdict(read: Any) -> Any:
        try:
            return repr(read(body, 20))
        except MalformedJson:
            return "refused"

    assert verdict(loads) == verdict(_read_slowly)
