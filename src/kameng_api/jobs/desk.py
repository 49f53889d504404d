"""What one worker process holds from start to stop; every job is handed it."""

from dataclasses import dataclass, field

from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Channel, Snapshot
from kameng_api.evidence.restores import Standing
from kameng_api.jobs.door_callbacks import Messenger
from kameng_api.jobs.orders import Buyer
from kameng_api.jobs.webhooks import Courier
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.fresh import Fresh
from kameng_api.settings import Settings
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import Supplier


@dataclass(slots=True)
class Desk:
    """The process's things. `worker` names this process in leases and logs."""

    settings: Settings
    db: Database
    keyring: Keyring
    catalog: Fresh[Snapshot]
    connections: Connections
    worker: str
    standing: Fresh[Standing] = field(init=False)
    courier: Courier = field(init=False)
    messenger: Messenger = field(init=False)
    buyer: Buyer = field(init=False)

    def supplier_of(self, channel: Channel) -> Supplier:
        """See `Connections.of`."""
        return self.connections.of(channel)


class CatalogLoader:
    """Loads the catalogue for a `Fresh`, whole again only when its version has moved."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._last: Snapshot | None = None

    async def __call__(self) -> Snapshot:
        async with self._db.transaction() as tx:
            self._last = await catalog.reload(tx, self._last)
        return self._last
