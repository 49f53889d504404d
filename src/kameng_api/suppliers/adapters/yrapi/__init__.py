"""大猿人 `yrapi`: the most spoken protocol of mobile and utility top-ups (话费, 电费)."""

from kameng_api.suppliers.adapters.yrapi.client import connect
from kameng_api.suppliers.adapters.yrapi.settings import YrapiSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="yrapi", title="大猿人 yrapi", settings=YrapiSettings, connect=connect)
