"""The file that tells other programs where the tour answers and with which keys."""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from kameng_api.demo.clients import Keys
from kameng_api.demo.stage import Addresses


def forget(path: Path) -> None:
    """An old file must not be taken for this tour's. Raises OSError when the folder is not there or not ours."""
    path.unlink(missing_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} cannot be written")


def write(path: Path, at: Addresses, admin_token: str, merchants: Sequence[Keys], skus: Sequence[str]) -> None:
    """Whole or not at all, readable by its owner only."""
    content = {
        "base_url": at.base_url,
        "admin_url": at.admin_url,
        "admin_token": admin_token,
        "simulator_url": at.simulator_url,
        "simulator_token": at.simulator_token,
        "merchants": [keys.shown() for keys in merchants],
        "skus": list(skus),
    }
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
