"""`kameng migrate`: the database's schema, as the owner role."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from kameng_api.settings import Settings


def upgrade(settings: Settings, alembic_ini: Path, revision: str) -> None:
    """Run the migrations up to `revision`. Both addresses of the database are known."""
    assert settings.database_url is not None and settings.database_owner_url is not None
    config = Config(str(alembic_ini))
    config.attributes["owner_url"] = settings.database_owner_url.get_secret_value()
    config.attributes["app_role"] = make_url(settings.database_url.get_secret_value()).username
    command.upgrade(config, revision)
