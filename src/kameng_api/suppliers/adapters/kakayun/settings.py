"""How one channel reaches its account at a 卡卡云 site."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class KakayunSettings(BaseModel):
    """Orders go to the site (`base_url`), every question to `query_url`, which the vendor fixes for all sites.

    `list_interval_s`: the vendor answers one page of the list in so many seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    query_url: str = Field(default="http://public.kky.v3.api.kakayun.vip", pattern=r"^https?://[^/?#\s]+/?$")
    userid: str = Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")
    key: SecretStr = Field(min_length=1)
    list_interval_s: float = Field(default=5.0, ge=0, le=60)
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url", "query_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
