"""Amounts survive the wire, and nothing that is not plainly an amount gets in."""

from decimal import ROUND_CEILING, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.kit.money import LARGEST, SCALE, at_rate, format_amount, parse_amount, share_of

amounts = st.integers(min_value=0, max_value=LARGEST)


@given(amounts)
def test_an_amount_survives_being_written_and_read(amount: int) -> None:
    assert parse_amount(format_amount(amount)) == amount


@given(st.integers(min_value=-LARGEST, max_value=LARGEST))
def test_the_text_is_the_decimal_it_looks_like(amount: int) -> None:
    text = format_amount(amount)
    assert Decimal(text) * SCALE == amount
    assert len(text.partition(".")[2]) == 4


@pytest.mark.parametrize(("text", "amount"), [("0", 0), ("98.5", 985000), ("0.0001", 1), ("100", 1_000_000), ("7.1234", 71234)])
def test_short_forms_are_read(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1.", ".5", "01", "1e3", "1,000", " 1", "1 ", "1\n", "1.00000", "١", "１", "NaN", "inf", "0x1", "1_000",
     "9" * 13],
)  # fmt: skip
def test_what_is_not_plainly_an_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal string"):
        parse_amount(text)


@given(st.text(max_size=20))
def test_any_text_is_read_exactly_or_refused(text: str) -> None:
    try:
        amount = parse_amount(text)
    except ValueError:
        return
    assert Decimal(text) * SCALE == amount
    assert text.isascii()


@given(amounts, st.integers(1, 10_000), st.data())
def test_shares_never_make_or_lose_money(amount: int, of_units: int, data: st.DataObject) -> None:
    units = data.draw(st.integers(0, of_units))
    share = share_of(amount, units, of_units)
    assert 0 <= share <= amount
    assert share * of_units <= amount * units < (share + 1) * of_units
    assert share_of(amount, of_units, of_units) == amount
    assert share_of(amount, 0, of_units) == 0


@given(st.integers(0, 10**12), st.integers(0, 3_000_000))
def test_a_rate_is_rounded_up_and_only_once(face_value: int, rate_ppm: int) -> None:
    exact = Decimal(face_value) * rate_ppm / 1_000_000
    assert at_rate(face_value, rate_ppm) == int(exact.to_integral_value(ROUND_CEILING))
