"""How one channel reaches its account at a dujiao-next shop."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class DujiaoSettings(BaseModel):
    """`base_url` without a path (every shop has its own); `currency` is the shop's, which its product list does not say.

    `target_field`: the key of the shop's order form (`manual_form_data`) that takes the number or account to charge.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    api_key: str = Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")
    api_secret: SecretStr = Field(min_length=1)
    currency: str = Field(default="CNY", pattern=r"^[A-Z]{3}$")
    target_field: str = Field(default="account", min_length=1, max_length=64)
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
