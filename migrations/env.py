"""Alembic's entry: runs as the owner role, and hands the application role no more than it needs.

The URL comes from `KAMENG_DATABASE_OWNER_URL`; `alembic -x url=…` overrides it.
"""

import asyncio
import re
from collections.abc import Mapping

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from kameng_api.settings import Settings
from kameng_api.tables import metadata

_PARTITION = re.compile(r".+_(p[0-9]{8}|default)")


def _is_ours(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Partitions come and go by the calendar; the tables name their parents only."""
    return kind != "table" or name is None or not _PARTITION.fullmatch(name)


def _urls() -> tuple[str, str]:
    """(owner URL, name of the application role)."""
    given = context.get_x_argument(as_dictionary=True)
    attributes = context.config.attributes
    settings = Settings()
    owner = given.get("url") or attributes.get("owner_url")
    app = given.get("app_role") or attributes.get("app_role")
    if owner is None and settings.database_owner_url is not None:
        owner = settings.database_owner_url.get_secret_value()
    if app is None and settings.database_url is not None:
        app = make_url(settings.database_url.get_secret_value()).username
    if owner is None:
        raise SystemExit("set KAMENG_DATABASE_OWNER_URL, or run `kameng migrate`, which knows the embedded server")
    return owner, app or "kameng_app"


def _run(connection: Connection, app_role: str) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        transaction_per_migration=True,
        include_name=_is_ours,
    )
    context.config.attributes["app_role"] = app_role
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.run_migrations()


async def _online() -> None:
    url, app_role = _urls()
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run, app_role)
        await connection.commit()
    await engine.dispose()


def _offline() -> None:
    url, app_role = _urls()
    context.configure(url=url, target_metadata=metadata, literal_binds=True)
    context.config.attributes["app_role"] = app_role
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _offline()
else:
    asyncio.run(_online())
