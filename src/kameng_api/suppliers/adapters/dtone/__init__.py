"""DT One Digital Value Services (DVS): airtime, bundles, PINs and gift cards of some 160 countries as a channel."""

from kameng_api.suppliers.adapters.dtone.client import connect
from kameng_api.suppliers.adapters.dtone.settings import DtoneSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="dtone", title="DT One DVS", settings=DtoneSettings, connect=connect)
