"""Reloadly gift cards as a channel; its airtime is the adapter `reloadly`, with tokens for another audience."""

from kameng_api.suppliers.adapters.reloadly_gift.client import connect
from kameng_api.suppliers.adapters.reloadly_gift.settings import ReloadlyGiftSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="reloadly_gift", title="Reloadly Gift Cards", settings=ReloadlyGiftSettings, connect=connect)
