"""卡易信 3.0: card codes and direct top-ups (卡券, 直充) on sites that run its software."""

from kameng_api.suppliers.adapters.kayixin.client import connect
from kameng_api.suppliers.adapters.kayixin.settings import KayixinSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="kayixin", title="卡易信 3.0", settings=KayixinSettings, connect=connect)
