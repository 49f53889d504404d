"""One real house for all tests of the package in this process."""

from collections.abc import Callable, Iterator

import pytest
from tests.factories.house import House, open_house

from kameng import AsyncClient, Client, RetryPolicy
from kameng_api.demo.clients import Keys

PATIENCE = RetryPolicy(deadline_s=30.0)


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    with open_house() as found:
        yield found


@pytest.fixture(scope="session")
def keys(house: House) -> Keys:
    """A merchant that signs by HMAC."""
    return house.merchant()


@pytest.fixture
def client(house: House, keys: Keys) -> Iterator[Client]:
    with _client_of(house.base_url, keys) as found:
        yield found


@pytest.fixture
def client_of() -> Callable[[str, Keys], Client]:
    """A client of any merchant at any address."""
    return _client_of


@pytest.fixture
def async_client_of() -> Callable[[str, Keys], AsyncClient]:
    return _async_client_of


def _client_of(base_url: str, keys: Keys) -> Client:
    return Client(
        base_url, keys.key_id, keys.secret,
        private_key=keys.private_key, delivery_key=keys.delivery_key, retry=PATIENCE, trust_env=False,
    )  # fmt: skip


def _async_client_of(base_url: str, keys: Keys) -> AsyncClient:
    return AsyncClient(
        base_url, keys.key_id, keys.secret,
        private_key=keys.private_key, delivery_key=keys.delivery_key, retry=PATIENCE, trust_env=False,
    )  # fmt: skip
