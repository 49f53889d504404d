"""How one channel reaches its account at the simulator."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class SimulatorSettings(BaseModel):
    """`base_url` without a path, `http://127.0.0.1:8090`; `timeout_s` for one call in total."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/?#\s]+/?$")
    app_key: str = Field(min_length=4, max_length=64)
    secret: SecretStr = Field(min_length=16)
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")
