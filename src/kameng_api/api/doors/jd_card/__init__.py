"""京东 游戏点卡: JD's game and membership shop sends its orders here, asks what became of them, and is told."""

from kameng_api.api.doors.jd_card.routes import DOOR

__all__ = ["DOOR"]
