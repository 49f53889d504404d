"""How one channel reaches its Reloadly account."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class ReloadlySettings(BaseModel):
    """A client of the Reloadly dashboard and the secret of its airtime webhook.

    `base_url` and `auth_url` without a path; the sandbox is `https://topups-sandbox.reloadly.com`, with a client of its own. `audience` is for
    whom tokens are asked, `base_url` unless set. `currency` is that of the account.

    `country_code` is put before targets that have no leading "+" ("86" for Chinese numbers); empty:
    targets are international already.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(
        default="https://topups.reloadly.com",
        pattern=r"^https?://[^/?#\s]+/?$",
        title="Address",
        description="Production unless set; the sandbox is https://topups-sandbox.reloadly.com, with a client of its own.",
        json_schema_extra={"title_zh": "接口地址", "description_zh": "默认正式环境；沙箱为 https://topups-sandbox.reloadly.com，客户端另配。"},
    )
    auth_url: str = Field(
        default="https://auth.reloadly.com",
        pattern=r"^https?://[^/?#\s]+/?$",
        title="Token address",
        description="Where access tokens are asked for.",
        json_schema_extra={"title_zh": "令牌地址", "description_zh": "获取访问令牌的地址。"},
    )
    audience: str = Field(
        default="",
        pattern=r"^(https?://[^?#\s]+)?$",
        title="Audience",
        description="For whom tokens are asked; the address unless set.",
        json_schema_extra={"title_zh": "令牌受众", "description_zh": "令牌的 audience，留空即接口地址。"},
    )
    client_id: str = Field(
        min_length=4,
        max_length=128,
        title="Client ID",
        description="Of the Reloadly dashboard, Developers.",
        json_schema_extra={"title_zh": "客户端 ID", "description_zh": "Reloadly 后台 Developers 页面的 Client ID。"},
    )
    client_secret: SecretStr = Field(
        min_length=8,
        title="Client secret",
        description="Leaves for tokens alone; sealed, and never shown again.",
        json_schema_extra={"title_zh": "客户端密钥", "description_zh": "只用于获取令牌，加密保存，之后不再显示。"},
    )
    webhook_secret: SecretStr = Field(
        min_length=8,
        title="Webhook secret",
        description="Of the airtime webhook, which is set in the dashboard with this channel's callback address.",
        json_schema_extra={"title_zh": "回调密钥", "description_zh": "话费 Webhook 的签名密钥；在后台把回调地址设为本渠道的回调地址。"},
    )
    currency: str = Field(
        default="USD",
        pattern=r"^[A-Z]{3}$",
        title="Balance currency",
        description="Of our account there: nothing is bought in another, and a cost told in another is not read.",
        json_schema_extra={"title_zh": "余额币种", "description_zh": "我们在对方账户的币种；其他币种的订单不发送，以其他币种告知的成本不采用。"},
    )
    country_code: str = Field(
        default="",
        pattern=r"^([1-9][0-9]{0,3})?$",
        title="Country code",
        description="Put before targets without +, 86 for Chinese numbers; empty: targets are international already.",
        json_schema_extra={"title_zh": "国家区号", "description_zh": "号码前没有 + 时补上的区号，中国为 86；留空表示号码已是国际格式。"},
    )
    timeout_s: float = Field(default=30.0, gt=0, le=90)

    @field_validator("base_url", "auth_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
