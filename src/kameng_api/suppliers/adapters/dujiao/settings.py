"""How one channel reaches its account at a dujiao-next shop."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class DujiaoSettings(BaseModel):
    """`base_url` without a path (every shop has its own); `currency` is the shop's, which its product list does not say.

    `target_field`: the key of the shop's order form (`manual_form_data`) that takes the number or account to charge.

    `manual_payload`: whether the text of a delivery by hand is goods (handed on whole and sealed, like a card) or a note (not handed on at all).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    api_key: str = Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")
    api_secret: SecretStr = Field(min_length=1)
    currency: str = Field(default="CNY", pattern=r"^[A-Z]{3}$")
    target_field: str = Field(default="account", min_length=1, max_length=64)
    manual_payload: Literal["goods", "note"] = Field(
        default="goods",
        title="Text of deliveries by hand",
        description="goods: handed on sealed, like a card, and the same text twice is for a person. note: not handed on.",
        json_schema_extra={"title_zh": "人工发货内容", "description_zh": "goods：按卡密加密交付，重复内容转人工；note：只是备注，不交付。"},
    )
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
