"""How one channel reaches its user account on a 卡速售 site."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class KasushouSettings(BaseModel):
    """`base_url` is the site without a path (`/api/v1` is added); every site has its own host. `timeout_s` for one call in total."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    user_id: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        title="User ID",
        description="The interface appid of the user account.",
        json_schema_extra={"title_zh": "接口appid", "description_zh": "用户接口的 appid（请求头 UserId）。"},
    )
    apikey: SecretStr = Field(
        min_length=8,
        title="API key",
        description="Signs every call; sealed, and never shown again.",
        json_schema_extra={"title_zh": "密钥", "description_zh": "用户接口的 apikey，用来签名，加密保存，之后不再显示。"},
    )
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
