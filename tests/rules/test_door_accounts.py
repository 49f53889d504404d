"""What a door account means, decided from values."""

from uuid import UUID

import pytest

from kameng_api.kit.ids import new_ulid
from kameng_api.merchants.door_rules import Account, DoorAccount, Sold, check_account
from kameng_api.orders import foreign


def _account(products: dict[str, Sold], *, own_skus: bool) -> DoorAccount:
    seen = Account("1001", "test", "CNY", {"api_key": "secret-for-tests"})
    return DoorAccount("yrapi", new_ulid(), seen, new_ulid(), "m", True, 17, "standard", True, (), products, own_skus, None, None)


def test_a_mapped_number_wins_over_a_sku_of_the_same_name() -> None:
    account = _account({"8": Sold("mobile-cn-100")}, own_skus=True)
    assert account.sold_as("8") == Sold("mobile-cn-100")
    assert account.sold_as("qb") == Sold("qb")
    assert account.sold_as("a b") is None


def test_without_own_skus_only_the_map_counts() -> None:
    assert _account({}, own_skus=False).sold_as("mobile-cn-100") is None


def test_what_is_wrong_with_an_account_is_said_without_its_secrets() -> None:
    errors = check_account("a b", {"api_key": "short"}, {"8": {"price": "1"}}, (), (0, None))
    assert {e.pointer for e in errors} == {"/account", "/secrets/api_key", "/products", "/writes_per_s"}
    assert "short" not in repr(errors)


def test_a_receiver_names_its_account_and_keeps_the_address_whole() -> None:
    account = new_ulid()
    named = foreign.receiver(account, "https://m.example.com:8443/cb?a=1:2")
    assert foreign.read_receiver(named) == (account, "https://m.example.com:8443/cb?a=1:2")
    assert foreign.read_receiver("https://m.example.com/cb") is None
    assert foreign.read_receiver(None) is None


@pytest.mark.parametrize("salt", range(50))
def test_a_short_id_leads_back_to_its_id(salt: int) -> None:
    order_id = UUID(int=new_ulid().int)
    short = foreign.short_of(order_id)
    assert 0 < short < 1 << 63
    between = foreign.ids_of_short(short)
    assert between is not None and between[0] <= order_id <= between[1]


def test_ids_of_one_process_have_different_short_forms() -> None:
    ids = [new_ulid() for _ in range(5_000)]
    assert len({foreign.short_of(one) for one in ids}) == len(ids)


@pytest.mark.parametrize("number", [0, -1, 1 << 63])
def test_what_is_no_short_id_leads_nowhere(number: int) -> None:
    assert foreign.ids_of_short(number) is None
