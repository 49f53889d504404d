"""京东 通用交易 (vtp): JD's general trade platform has its orders produced here, and is told the result."""

from kameng_api.api.doors.jd_general.routes import DOOR

__all__ = ["DOOR"]
