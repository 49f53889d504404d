"""阿奇索 / 91卡券 标准货源: a marketplace's auto-delivery tool buys from us as from any standard supplier."""

from kameng_api.api.doors.agiso.routes import DOOR

__all__ = ["DOOR"]
