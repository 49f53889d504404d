"""大猿人 yrapi: the form that most 话费 merchants' software already speaks. README.md tells its source and its quirks."""

from kameng_api.api.doors.yrapi.routes import DOOR

__all__ = ["DOOR"]
