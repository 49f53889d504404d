"""Carriers and homes from the prefix plan, barcodes, check digits, and the carrier rule of products."""

import zlib
from dataclasses import replace

import pytest
from tests.factories import areas

from kameng_api.catalog import abroad, barcodes, checksums, definitions, numbers, rules
from kameng_api.catalog.numbers import NumberWord
from kameng_api.catalog.rules import FormField, Product

PHONE = Product("phone", "Phone", "topup", face_value=1_000_000, target_kind="mobile")
REST = "0013123"
MOBILE_ONLY = replace(PHONE, carriers=("cmcc",))


@pytest.mark.parametrize(
    ("number", "carrier", "virtual"),
    [
        ("13800138000", "cmcc", False),
        ("13000131234", "cucc", False),
        ("13300131234", "ctcc", False),
        ("19200131234", "cbn", False),
        ("16500131234", "cmcc", True),
        ("16200131234", "ctcc", True),
        ("16700131234", "cucc", True),
        ("17000131234", "ctcc", True),
        ("1705" + REST, "cmcc", True),
        ("1709" + REST, "cucc", True),
        ("10000000001", None, False),  # magic targets are nobody's
        ("12345678901", None, False),
    ],
)
def test_the_plan_knows_the_carrier(number: str, carrier: str | None, virtual: bool) -> None:
    assert numbers.of_mobile(number) == NumberWord(carrier, virtual)


def test_the_plan_knows_the_home() -> None:
    assert numbers.home_of("13800138000") == numbers.Home("北京市", "Beijing")
    assert numbers.home_of("13000131234").zh == "天津市"
    assert numbers.home_of("10000000001") == numbers.Home()


def test_the_packed_plan_is_the_one_of_the_library() -> None:
    assert zlib.decompress(areas.made()) == zlib.decompress(areas.FILE.read_bytes()), "run python -m tests.factories.areas"


@pytest.mark.parametrize(
    ("carriers", "word", "fits"),
    [
        ((), NumberWord("cucc"), True),
        (("cmcc",), NumberWord("cmcc"), True),
        (("cmcc",), NumberWord("cucc"), False),
        (("cmcc",), NumberWord("cmcc", virtual=True), False),
        (("cmcc", "virtual"), NumberWord("cmcc", virtual=True), True),
        (("cmcc", "virtual"), NumberWord("cucc", virtual=True), False),
        (("cmcc",), NumberWord(None), True),
    ],
)
def test_who_may_be_charged(carriers: tuple[str, ...], word: NumberWord, fits: bool) -> None:
    assert numbers.may_charge(carriers, word) is fits


def test_a_look_up_is_believed_over_the_prefix() -> None:
    assert rules.check_carrier(MOBILE_ONLY, "13000131234", None) is not None
    assert rules.check_carrier(MOBILE_ONLY, "13000131234", NumberWord("cmcc", source="lookup", ported=True)) is None
    wrong = rules.check_carrier(MOBILE_ONLY, "13800138000", NumberWord("cucc", source="lookup", ported=True))
    assert wrong is not None
    assert (wrong.pointer, wrong.code) == ("/target", "carrier")
    assert "13800138000" not in wrong.detail


@pytest.mark.parametrize(
    ("text", "region", "valid", "kind"),
    [
        ("13800138000", "CN", True, "mobile"),
        ("+8613800138000", "CN", True, "mobile"),
        ("+85291234567", "HK", True, "mobile"),
        ("+12125550123", "US", True, "mobile_or_fixed_line"),
        ("+861062780000", "CN", True, "fixed_line"),
    ],
)
def test_numbers_of_the_world(text: str, region: str, valid: bool, kind: str) -> None:
    found = abroad.read_number(text)
    assert found is not None
    assert (found.region, found.valid, found.kind) == (region, valid, kind)
    assert text.removeprefix("+").removeprefix("86") not in repr(found)


# ---- check digits ----------------------------------------------------------------------------------------------------

# Published examples: the standards' own, and numbers set aside for tests.
GOOD = {
    "luhn": ["4111111111111111", "79927398713", "490154203237518"],
    "gb_11643": ["11010519491231002X", "440524188001010014"],
    "gb_32100": ["91350100M000100Y43"],
    "mod_11_2": ["079X", "000000012146438X"],
    "mod_11_10": ["07945"],
    "mod_97_10": ["79444"],
    "gtin": ["96385074", "036000291452", "4006381333931", "00012345600012"],
}


def test_every_kind_has_an_example() -> None:
    assert set(GOOD) == set(checksums.KINDS)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in GOOD.items() for text in texts])
def test_a_good_number_passes_and_each_wrong_digit_is_found(kind: str, text: str) -> None:
    fits = checksums.KINDS[kind]
    assert fits(text)
    for n, letter in enumerate(text):
        if letter.isdigit():
            assert not fits(text[:n] + str((int(letter) + 1) % 10) + text[n + 1 :]), n


@pytest.mark.parametrize("kind", list(GOOD))
@pytest.mark.parametrize("text", ["", "x", "一二三", "１２３４５６７８", " 79927398713", "-1", "0", "\n"])
def test_what_is_no_number_is_refused_without_an_error(kind: str, text: str) -> None:
    assert not checksums.KINDS[kind](text)


def test_a_day_that_never_was_is_no_birthday() -> None:
    assert not checksums.gb_11643("110105194902310020")


HOLDER = FormField("holder", "证件号", checksum="gb_11643", min_length=18, max_length=18)
FORM = replace(PHONE, fields=(HOLDER, FormField("card", "卡号", required=False, checksum="luhn")))


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"holder": "11010519491231002X"}, []),
        ({"holder": "110105194912310021"}, [("/fields/holder", "checksum")]),
        ({"holder": "1101051949"}, [("/fields/holder", "too_short")]),
        ({"holder": "11010519491231002X", "card": "79927398710"}, [("/fields/card", "checksum")]),
    ],
)
def test_form_fields_are_checked(fields: dict[str, str], wrong: list[tuple[str, str]]) -> None:
    errors = rules.check_form(FORM, fields)
    assert [(e.pointer, e.code) for e in errors] == wrong
    assert all(value not in e.detail for e in errors for value in fields.values())


@pytest.mark.parametrize(
    ("product", "pointers"),
    [
        (replace(PHONE, carriers=("cmcc", "cbn", "virtual")), []),
        (replace(PHONE, carriers=("virtual",)), ["/carriers"]),
        (replace(PHONE, carriers=("vodafone",)), ["/carriers"]),
        (replace(PHONE, carriers=("cmcc", "cmcc")), ["/carriers"]),
        (replace(PHONE, target_kind="account", carriers=("cmcc",)), ["/carriers"]),
        (replace(PHONE, fields=(FormField("a", "A", checksum="crc32"),)), ["/fields/0/checksum"]),
        (replace(PHONE, fields=(FormField("a", "A", min_length=9, max_length=8),)), ["/fields/0/min_length"]),
    ],
)
def test_what_may_be_defined(product: Product, pointers: list[str]) -> None:
    assert [e.pointer for e in definitions.check_product(product)] == pointers


# ---- barcodes --------------------------------------------------------------------------------------------------------

KNOWN = {barcodes.key_of("4006381333931"): "ean", barcodes.key_of("036000291452"): "upc", barcodes.key_of("KM-SHELF-7"): "own"}
SKUS = {"ean": 1, "upc": 1, "own": 1, "mobile-cn-100": 1}


@pytest.mark.parametrize(
    ("text", "sku"),
    [
        ("4006381333931", "ean"),
        (" 4006381333931\r\n", "ean"),
        ("04006381333931", "ean"),
        ("0036000291452", "upc"),
        ("036000291452", "upc"),
        ("]E04006381333931", "ean"),
        ("]C10104006381333931", "ean"),
        ("(01)04006381333931(21)12345", "ean"),
        ("]d20104006381333931\x1d21ABC", "ean"),
        ("https://id.gs1.org/01/04006381333931/21/12345", "ean"),
        ("KM-SHELF-7", "own"),
        ("mobile-cn-100", "mobile-cn-100"),
        ("kameng:mobile-cn-100", "mobile-cn-100"),
        ("https://shop.example/p?a=1&sku=mobile-cn-100", "mobile-cn-100"),
        ("https://shop.example/p?sku=mobile-cn-100&sku=own", None),
        ("https://shop.example/mobile-cn-100", None),
        ("javascript:mobile-cn-100", None),
        ("4006381333932", None),
        ("kameng:", None),
        ("", None),
        ("http://[", None),
    ],
)
def test_what_a_scan_means(text: str, sku: str | None) -> None:
    assert barcodes.find_sku(text, KNOWN, SKUS) == sku


def test_a_misread_is_told_from_an_unknown_barcode() -> None:
    assert barcodes.is_misread("4006381333932")
    assert not barcodes.is_misread("4006381333931")
    assert not barcodes.is_misread("KM-1")


def test_the_same_article_number_in_two_lengths_is_one_barcode() -> None:
    errors = definitions.check_barcodes(["036000291452", "0036000291452", "ok", " padded", ""])
    assert [(e.pointer, e.code) for e in errors] == [("/barcodes/1", "duplicate"), ("/barcodes/3", "format"), ("/barcodes/4", "format")]
