"""How one channel reaches its customer account on a 卡易信 site."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class KayixinSettings(BaseModel):
    """`base_url` is the site without a path (`/api/v3` is added); every site has its own host. `timeout_s` for one call in total.

    `target_field`: under which title (充值模板) the number or account is sent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    app_id: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        title="Customer number",
        description="Names our account in every call (X-APP-ID).",
        json_schema_extra={"title_zh": "客户编号", "description_zh": "每次请求都带的客户编号（X-APP-ID）。"},
    )
    app_secret: SecretStr = Field(
        min_length=32,
        max_length=32,
        title="Secret",
        description="32 characters; signs every call and opens the cards of callbacks. Sealed, and never shown again.",
        json_schema_extra={"title_zh": "接口秘钥", "description_zh": "32 位接口秘钥，用来签名和解密回调里的卡券，加密保存，之后不再显示。"},
    )
    target_field: str = Field(
        default="充值账号",
        min_length=1,
        max_length=40,
        title="Target field",
        description="The title of the field that carries the number or account, as the goods' template has it.",
        json_schema_extra={"title_zh": "账号字段标题", "description_zh": "充值模板里账号那一栏的标题，原样填写。"},
    )
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
