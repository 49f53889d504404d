"""Reloadly airtime: top-ups, bundles and PINs of some 150 countries as a channel; its gift cards are the adapter `reloadly_gift`."""

from kameng_api.suppliers.adapters.reloadly.client import connect
from kameng_api.suppliers.adapters.reloadly.settings import ReloadlySettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="reloadly", title="Reloadly Airtime", settings=ReloadlySettings, connect=connect)
