"""卡速售 2.0: card shops and direct top-ups (卡密, 直充) on sites that run its software."""

from kameng_api.suppliers.adapters.kasushou.client import connect
from kameng_api.suppliers.adapters.kasushou.settings import KasushouSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="kasushou", title="卡速售 2.0", settings=KasushouSettings, connect=connect)
