"""卡卡云 (咔咔云) as an upstream: dockapiv3."""

from kameng_api.suppliers.adapters.kakayun.client import connect
from kameng_api.suppliers.adapters.kakayun.settings import KakayunSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="kakayun", title="卡卡云", settings=KakayunSettings, connect=connect)
