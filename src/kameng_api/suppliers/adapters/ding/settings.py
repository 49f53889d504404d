"""How one channel reaches its Ding Connect account."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class DingSettings(BaseModel):
    """A key of the developer page of the account.

    `base_url` without a path; test (UAT) keys have the same host. `currency` is that of the account.

    `countries` are those whose goods are listed (ISO 3166 alpha-2), all of the
    vendor's unless set: one request each. `country_code` is put before targets that have no leading "+" ("86" for Chinese numbers); empty:
    targets are international already. `defer` asks the vendor to answer at once and to try on by itself (`X-Option: DeferTransfer`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(
        default="https://api.dingconnect.com",
        pattern=r"^https?://[^/?#\s]+/?$",
        title="Address",
        description="Test (UAT) keys have the same host.",
        json_schema_extra={"title_zh": "接口地址", "description_zh": "测试（UAT）密钥也用同一地址。"},
    )
    api_key: SecretStr = Field(
        min_length=8,
        title="API key",
        description="Of the account's developer page; sealed, and never shown again.",
        json_schema_extra={"title_zh": "API 密钥", "description_zh": "账号开发者页面的 API Key，加密保存，之后不再显示。"},
    )
    currency: str = Field(
        default="USD",
        pattern=r"^[A-Z]{3}$",
        title="Balance currency",
        description="Of our account there: nothing is bought in another, and a cost told in another is not read.",
        json_schema_extra={"title_zh": "余额币种", "description_zh": "我们在对方账户的币种；其他币种的订单不发送，以其他币种告知的成本不采用。"},
    )
    countries: tuple[str, ...] = Field(
        default=(),
        title="Countries",
        description="Two capital letters each, as CN; whose goods are listed, one request each. Empty: all.",
        json_schema_extra={"title_zh": "国家", "description_zh": "两位大写国家代码，如 CN；只同步这些国家的商品，每个国家一次请求。留空为全部。"},
    )
    country_code: str = Field(
        default="",
        pattern=r"^([1-9][0-9]{0,3})?$",
        title="Country code",
        description="Put before targets without +, 86 for Chinese numbers; empty: targets are international already.",
        json_schema_extra={"title_zh": "国家区号", "description_zh": "号码前没有 + 时补上的区号，中国为 86；留空表示号码已是国际格式。"},
    )
    defer: bool = Field(
        default=False,
        title="Defer",
        description="Asks the vendor to answer at once and to try on by itself.",
        json_schema_extra={"title_zh": "延迟处理", "description_zh": "让对方立即应答并自行重试。"},
    )
    timeout_s: float = Field(default=30.0, gt=0, le=95)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("countries")
    @classmethod
    def _iso(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(len(country) == 2 and country.isascii() and country.isupper() for country in value):
            raise ValueError("countries are two capital letters each")
        return value
