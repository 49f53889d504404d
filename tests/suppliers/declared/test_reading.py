"""Values out of answers and into requests: bounded expressions, strict texts, amounts that never round up, times in their zone."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.suppliers.adapters.declared import spelling
from kameng_api.suppliers.adapters.declared.expressions import Unreadable, amount_of, compile_expression, count_of, text_of, word
from kameng_api.suppliers.adapters.declared.templates import (
    VALUES,
    CannotSay,
    Scene,
    compile_field,
    compile_template,
    compile_time_reader,
    float_text,
    spell_amount,
)
from kameng_api.suppliers.port import Purchase

NOW = datetime(2026, 11, 23, 23, 30, 5, 678_000, tzinfo=UTC)
PURCHASE = Purchase("T1", "1-100", "topup", 3, "CNY", 299_999, target="13800138000", fields={"area": "沪", "b": "2"}, face_value=100_0000)
SCENE = Scene(NOW, "0123456789abcdef" * 2, {"key": "k", "base_url": "https://a"}, PURCHASE, {"reference": "T1"}, ("1", "100"))


def say(template: str, scene: Scene = SCENE) -> str:
    return compile_template(template, VALUES["place"], frozenset(scene.settings))(scene)


# ---- expressions


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("a" * 301, "300 characters"),
        ("(" * 290, "not a JMESPath"),
        (".".join(["a[0]"] * 40), "parts"),
        ("a[" * 140, "not a JMESPath"),
        ("[a, b]", "multi select list"),
        ("{a: b}", "multi select dict"),
        ("map(&a, b)", "no function 'map'"),
        ("to_number(a)", "no function 'to_number'"),
        ("a || b || c || d || e || f || g || h || i || j || k || l || m || n", "deep"),
    ],
)
def test_an_expression_only_picks_and_stays_small(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compile_expression(expression)


def test_an_expression_picks() -> None:
    found = {"data": {"list": [{"n": 1}, {"n": 2, "s": "x"}], "a": None, "b": "y"}}
    assert compile_expression("data.list[?s=='x'].n | [0]")(found) == 2
    assert compile_expression("data.a || data.b")(found) == "y"
    assert compile_expression("data.*.x")(found) == []
    with pytest.raises(Unreadable):
        compile_expression("length(data.a)")(found)


@pytest.mark.parametrize(
    ("value", "read"), [("1", "1"), (1, "1"), (True, "true"), (None, None), (Decimal("1.0"), None), ([], None), ({}, None), ("", "")]
)
def test_a_code_is_text_a_whole_number_or_a_truth_value(value: Any, read: str | None) -> None:
    assert word(value) == read


@pytest.mark.parametrize(
    ("value", "unit", "amount"),
    [
        ("9.9", "yuan", 99_000),
        (9, "yuan", 90_000),
        (Decimal("9.90"), "yuan", 99_000),
        ("990", "fen", 99_000),
        ("-1.5", "yuan", -15_000),
        ("9.90000", "yuan", 99_000),
    ],
)
def test_an_amount_is_exact(value: Any, unit: str, amount: int) -> None:
    assert amount_of(value, unit) == amount


@pytest.mark.parametrize("value", ["", "9,9", "1e3", "0x1", " 9", "9.99999", "NaN", None, [], 10**15, "٣", "1" * 14])
def test_what_is_no_amount_is_none(value: Any) -> None:
    with pytest.raises(Unreadable):
        amount_of(value, "yuan")


def test_counts_and_texts() -> None:
    assert count_of("12") == 12 and count_of(3) == 3
    for odd in ("-1", "1.0", "01", None, "9" * 10):
        with pytest.raises(Unreadable):
            count_of(odd)
    assert text_of("x" * 500) == "x" * 128 and text_of("") is None and text_of(Decimal("9.90")) == "9.90"


# ---- texts


PLAIN = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.recursive(PLAIN, lambda inner: st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner)))
def test_json_is_written_as_it_is_read(value: Any) -> None:
    for options in ({}, {"escape_slashes": True}, {"escape_unicode": True}, {"sort": True}):
        text = spelling.json_text({"a": value}, **options)
        assert spelling.read_json(text.encode(), "utf-8") == {"a": value}


def test_json_keeps_the_digits_of_numbers_and_each_name_once() -> None:
    assert spelling.json_text(spelling.read_json(b'{"a":9.90,"b":[1,true,null]}', "utf-8")) == '{"a":9.90,"b":[1,true,null]}'
    for broken in (b'{"a":1,"a":2}', b"{", b"NaN", b'{"a":1e5}', b"\xff", b"[" * 100_000, b"1" * 30):
        with pytest.raises(Unreadable):
            spelling.read_json(broken, "utf-8")


def test_a_form_in_gbk_is_written_and_read() -> None:
    text = spelling.form_text({"a": "话费 +&", "b": ""}, "gbk")
    assert text == "a=%BB%B0%B7%D1+%2B%26&b="
    assert spelling.read_form(text.encode(), "gbk") == {"a": "话费 +&", "b": ""}
    for broken in (b"a=1&a=2", b"a", b"", b"a=%ff", "a=话".encode()):
        with pytest.raises(Unreadable):
            spelling.read_form(broken, "utf-8")


def test_multipart_is_what_others_read() -> None:
    body = spelling.multipart_body({"userid": "1", "name": "话"}, "utf-8", "BOUND")
    head = '--BOUND\r\nContent-Disposition: form-data; name="'
    assert body == f'{head}userid"\r\n\r\n1\r\n{head}name"\r\n\r\n话\r\n--BOUND--\r\n'.encode()


def test_xml_is_flat_and_harmless() -> None:
    read = spelling.read_xml
    plain = b'<?xml version="1.0"?><r a="1"><code>0</code><msg>&lt;ok&gt; <![CDATA[<b>]]></msg></r>'
    assert read(plain, "utf-8") == {"r": {"code": "0", "msg": "<ok> <b>"}}
    assert read('<?xml version="1.0" encoding="GB2312"?><r><m>充值</m></r>'.encode("gbk"), "gbk") == {"r": {"m": "充值"}}
    assert read(b"<r><i>1</i><i>2</i></r>", "utf-8") == {"r": {"i": ["1", "2"]}}
    bomb = b'<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><r>&b;</r>'
    outside = b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>'
    for broken in (bomb, outside, b"<r>&x;</r>", b"<r>", b"<r>a<b/></r>", b"\xff", b"", b"<a>" * 50, b"<r/>x"):
        with pytest.raises(Unreadable):
            read(broken, "utf-8")


# ---- templates


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{reference}", "T1"),
        ("A-{reference}-{units}", "A-T1-3"),
        ("{{x}} {settings.key}", "{x} k"),
        ("{part.2}/{part.1}", "100/1"),
        ("{fields.area}", "沪"),
        ("{fields.none?}", ""),
        ("{max_cost:yuan2}", "29.99"),
        ("{max_cost:fen}", "2999"),
        ("{max_cost:yuan4}", "29.9999"),
        ("{unit_max_cost:yuan4}", "9.9999"),
        ("{unit_max_cost:%.1f}", "9.9"),
        ("{face_value:yuan}", "100"),
        ("{face_value:yuan2}", "100.00"),
        ("{face_value:%.0f}", "100"),
        ("{now:unix_s}", "1795476605"),
        ("{now:unix_ms}", "1795476605678"),
        ("{now:yyyy-MM-dd HH:mm:ss}", "2026-11-24 07:30:05"),
        ("{now:yyyyMMddHHmmssSSS@UTC}", "20261123233005678"),
        ("{now:iso@UTC}", "2026-11-23T23:30:05+00:00"),
        ("{nonce:8}", "01234567"),
    ],
)
def test_a_template_says(template: str, text: str) -> None:
    assert say(template) == text


def test_what_cannot_be_said_is_not_sent() -> None:
    for template in ("{part.3}", "{fields.none}"):
        with pytest.raises(CannotSay):
            say(template)
    for change in ({"target": None}, {"target": ""}, {"target": "1\r\nX: 1"}):
        with pytest.raises(CannotSay):
            say("{target}", replace(SCENE, purchase=replace(PURCHASE, **change)))
    with pytest.raises(CannotSay):
        say("{face_value:yuan2}", replace(SCENE, purchase=replace(PURCHASE, face_value=100_0001)))
    assert say("{face_value?:yuan2}", replace(SCENE, purchase=replace(PURCHASE, face_value=None))) == ""


@pytest.mark.parametrize(
    "wrong",
    ["{now:yy'yy}", "{now:%Y}", "{now:iso@Mars/Base}", "{part.x}", "{units.a}", "{fields}", "{max_cost:%d}", "{nonce:99}", "{", "{}", "{units:3}"],
)
def test_a_wrong_template_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        say(wrong)


def test_a_limit_is_never_rounded_up_and_an_amount_never_at_all() -> None:
    assert spell_amount(99_999, "yuan2", downwards=True) == "9.99"
    with pytest.raises(CannotSay):
        spell_amount(99_999, "yuan2")
    assert float_text("9.95", "%.1f") == "9.9" and float_text("100", "%.1f") == "100.0"
    with pytest.raises(CannotSay):
        float_text("x", "%.1f")


def test_times_are_read_back() -> None:
    for spelled, text in (("unix_s", "1795476605"), ("unix_ms", "1795476605678"), ("yyyy-MM-dd HH:mm:ss", "2026-11-24 07:30:05")):
        assert abs((compile_time_reader(spelled)(text) - NOW).total_seconds()) < 1
    for text in ("", "x", "9" * 20, "-1"):
        with pytest.raises(ValueError):
            compile_time_reader("unix_s")(text)


def test_fields_may_be_nested() -> None:
    def make(node: Any) -> Any:
        return compile_field(node, VALUES["place"], frozenset(SCENE.settings))(SCENE)

    assert make({"number": "{units}"}) == 3 and make({"number": "{max_cost:yuan2}"}) == Decimal("29.99")
    assert make({"object": {"account": "{target}", "n": 1}}) == {"account": "13800138000", "n": 1}
    assert make({"list": [{"object": {"name": "a", "value": "{target}"}}]}) == [{"name": "a", "value": "13800138000"}]
    assert make({"json": {"object": {"account": "{target}"}}}) == '{"account":"13800138000"}'
    assert make({"base64": {"json": {"object": {"a": "b"}}}}) == "eyJhIjoiYiJ9"
    assert make({"all_fields": "object"}) == {"area": "沪", "b": "2"}
    assert make({"all_fields": {"name": "key", "value": "val"}}) == [{"key": "area", "val": "沪"}, {"key": "b", "val": "2"}]
    odd: list[Any] = [{"code": "x"}, {}, {"number": "x"}, [1], {"all_fields": "x"}, {"object": []}, {"list": {}}, 1.5, None]
    for wrong in odd:
        with pytest.raises(ValueError):
            make(wrong)
