"""福禄 open platform v2: memberships, games, cards and mobile top-ups (会员, 游戏, 卡密, 话费)."""

from kameng_api.suppliers.adapters.fulu.client import connect
from kameng_api.suppliers.adapters.fulu.settings import FuluSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="fulu", title="福禄 v2", settings=FuluSettings, connect=connect)
