"""How one channel reaches its account at 蜂助手."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class FengzhushouSettings(BaseModel):
    """`sku_price`: whether our limit is sent as `skuPrice`. The vendor refuses a price that does not match (3104); how, is not public."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    project_code: str = Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")
    sign_key: SecretStr = Field(min_length=1)
    sku_price: Literal["omit", "limit"] = "omit"
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
