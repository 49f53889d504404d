"""How one channel reaches its account at 卡商网 or a platform of its family."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from kameng_api.suppliers.port import RefusalReason

_TAKEN = frozenset({"ok", "server_error"})


class KashangwlSettings(BaseModel):
    """`body` and `timestamp`: 卡商网 takes JSON, 京兆云 a form; both sign seconds in their documents, clients of the first send milliseconds too.

    `safe_cost`: whether the platform compares it with the price of one unit or with the total; the document does not say. `unit` is never too
    high. `refusal_codes`: codes that this platform has confirmed to mean that nothing was bought, with what they mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(default="http://www.kashangwl.com", pattern=r"^https?://[^/?#\s]+/?$")
    customer_id: str = Field(pattern=r"^[0-9]{1,18}$")
    customer_key: SecretStr = Field(min_length=1)
    body: Literal["json", "form"] = "json"
    timestamp: Literal["s", "ms"] = "s"
    safe_cost: Literal["unit", "total"] = "unit"
    refusal_codes: dict[str, RefusalReason] = Field(default_factory=dict)
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("refusal_codes")
    @classmethod
    def _refusals(cls, value: dict[str, RefusalReason]) -> dict[str, RefusalReason]:
        if not all(code and code not in _TAKEN for code in value):
            raise ValueError("refusal_codes may not name ok or server_error")
        return value
