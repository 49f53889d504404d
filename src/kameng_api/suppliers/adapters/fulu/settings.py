"""How one channel reaches its application on 福禄's open platform."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from kameng_api.suppliers.port import RefusalReason


class FuluSettings(BaseModel):
    """`base_url` without a path (`/api/getway` is added, as they spell it); the sandbox is https://pre-openapi.fulu.com. `timeout_s` for one
    call in total.

    `refusal_codes`: error codes of placing that 福禄 itself has confirmed to mean "nothing was bought", with what they mean. None is known to
    be so from a document, so there is none at first, and every error code is doubt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(
        default="https://openapi.fulu.com",
        pattern=r"^https?://[^/?#\s]+/?$",
        title="Address",
        description="The live platform unless set; the sandbox is https://pre-openapi.fulu.com.",
        json_schema_extra={"title_zh": "接口地址", "description_zh": "默认正式环境；沙箱为 https://pre-openapi.fulu.com。"},
    )
    app_key: str = Field(pattern=r"^[!-~]{4,200}$")
    app_secret: SecretStr = Field(
        min_length=32,
        max_length=32,
        title="AppSecret",
        description="32 characters; signs every call and opens the cards. Sealed, and never shown again.",
        json_schema_extra={"title_zh": "应用密钥 AppSecret", "description_zh": "32 位 AppSecret，用来签名和解密卡密，加密保存，之后不再显示。"},
    )
    refusal_codes: dict[int, RefusalReason] = Field(
        default_factory=dict,
        title="Confirmed refusal codes",
        description='Error codes of placing that the vendor has confirmed to mean "nothing was bought", such as {"3002": "out_of_stock"}.',
        json_schema_extra={
            "title_zh": "已确认的失败码",
            "description_zh": '已与福禄书面确认“未下单”的错误码及原因，如 {"3002": "out_of_stock"}；其余一律按未知处理。',
        },
    )
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
