"""dujiao-next v1: how one such shop buys from another. README.md tells its source and its quirks."""

from kameng_api.api.doors.dujiao.routes import DOOR

__all__ = ["DOOR"]
