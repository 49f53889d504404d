"""How one channel is a merchant of another house."""

import base64
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator


class KamengSettings(BaseModel):
    """The key signs with `secret` (HMAC) or with `private_key` (Ed25519: base64 of the 32-byte seed), never with both.

    `delivery_key` (32 ASCII characters) opens card codes, `webhook_secret` (`whsec_…`, the merchant's default one) proves callbacks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    key_id: str = Field(pattern=r"^ak_(live|test)_[0-9A-HJKMNP-TV-Z]{26}$")
    secret: SecretStr | None = None
    private_key: SecretStr | None = None
    delivery_key: SecretStr = Field(min_length=32, max_length=32)
    webhook_secret: SecretStr = Field(min_length=1)
    currency: str = Field(default="CNY", pattern=r"^[A-Z]{3}$")
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> Self:
        if (self.secret is None) == (self.private_key is None):
            raise ValueError("give either secret or private_key")
        if self.private_key is not None and len(base64.b64decode(self.private_key.get_secret_value())) != 32:
            raise ValueError("private_key is base64 of 32 bytes")
        return self
