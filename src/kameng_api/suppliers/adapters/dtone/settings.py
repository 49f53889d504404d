"""How one channel reaches its DT One account."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class DtoneSettings(BaseModel):
    """An API key pair of DT Shop and the Basic credentials set there for callbacks.

    `base_url` without a path: production unless set; `https://preprod-dvs-api.dtone.com` is the sandbox, with keys of its own.
    `currency` is the unit of our balance there, in which costs are told. `country_code` is put before targets that have no leading "+"
    ("86" for Chinese numbers); empty: targets are international already.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(
        default="https://dvs-api.dtone.com",
        pattern=r"^https?://[^/?#\s]+/?$",
        title="Address",
        description="Production unless set; the sandbox is https://preprod-dvs-api.dtone.com, with keys of its own.",
        json_schema_extra={"title_zh": "接口地址", "description_zh": "默认正式环境；沙箱为 https://preprod-dvs-api.dtone.com，密钥另配。"},
    )
    api_key: str = Field(
        min_length=4,
        max_length=128,
        pattern=r"^[^:\s]+$",
        title="API key",
        description="Of DT Shop, Developer section; our outgoing address must be on the list there.",
        json_schema_extra={"title_zh": "API Key", "description_zh": "DT Shop 开发者页面的 API Key；出口 IP 需加入其白名单。"},
    )
    api_secret: SecretStr = Field(
        min_length=8,
        title="API secret",
        description="Belongs to the API key; sealed, and never shown again.",
        json_schema_extra={"title_zh": "API Secret 密钥", "description_zh": "与 API Key 配对，加密保存，之后不再显示。"},
    )
    callback_user: str = Field(
        min_length=4,
        max_length=128,
        pattern=r"^[^:\s]+$",
        title="Callback user",
        description="Callbacks bring it; set the same in DT Shop.",
        json_schema_extra={"title_zh": "回调用户名", "description_zh": "回调携带的用户名，需与 DT Shop 中的设置一致。"},
    )
    callback_password: SecretStr = Field(
        min_length=8,
        title="Callback password",
        description="Callbacks bring it; set the same in DT Shop. Sealed, and never shown again.",
        json_schema_extra={"title_zh": "回调密码", "description_zh": "回调携带的密码，需与 DT Shop 中的设置一致；加密保存。"},
    )
    currency: str = Field(
        default="USD",
        pattern=r"^[A-Z]{3}$",
        title="Balance currency",
        description="The unit of our balance there, in which costs are told.",
        json_schema_extra={"title_zh": "余额币种", "description_zh": "我们在对方的余额币种，成本按此币种记录。"},
    )
    country_code: str = Field(
        default="",
        pattern=r"^([1-9][0-9]{0,3})?$",
        title="Country code",
        description="Put before targets without +, 86 for Chinese numbers; empty: targets are international already.",
        json_schema_extra={"title_zh": "国家区号", "description_zh": "号码前没有 + 时补上的区号，中国为 86；留空表示号码已是国际格式。"},
    )
    timeout_s: float = Field(default=30.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
