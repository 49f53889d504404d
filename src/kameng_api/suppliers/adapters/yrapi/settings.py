"""How one channel reaches its merchant account on a 大猿人 site."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class YrapiSettings(BaseModel):
    """`base_url` is the site without a path (`/yrapi.php` is added); there is no common host. `timeout_s` for one call in total."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    userid: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        title="Merchant ID",
        description="The merchant account of the site, as its back office shows it.",
        json_schema_extra={"title_zh": "商户ID", "description_zh": "站点后台显示的商户ID（userid）。"},
    )
    apikey: SecretStr = Field(
        min_length=8,
        title="API key",
        description="Signs every call; sealed, and never shown again.",
        json_schema_extra={"title_zh": "密钥", "description_zh": "后台的 apikey，用来签名，加密保存，之后不再显示。"},
    )
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
