"""Everything an operator may set, read from the environment (`KAMENG_…`) or `.env`; every setting is described in docs/operations.md."""

import base64
import binascii
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEVELOPMENT_SECRET = "ZGV2ZWxvcG1lbnQtb25seS1kby1ub3QtdXNlLWl0ISE="  # noqa: S105  public on purpose; refused in live mode


class Settings(BaseSettings):
    """One process's settings. Secrets never show in repr, log or error."""

    model_config = SettingsConfigDict(env_prefix="KAMENG_", env_file=".env", extra="ignore", hide_input_in_errors=True)

    mode: Literal["development", "live"] = "development"
    """`live` refuses default secrets, loopback webhooks and the embedded servers."""
    var: Path = Path("var")
    """Where the embedded servers keep their data."""

    database_url: SecretStr | None = None
    """`postgresql+asyncpg://…` as the application role. Unset: the embedded PostgreSQL."""
    database_owner_url: SecretStr | None = None
    """The owner role, used by `kameng migrate` only."""
    redis_url: SecretStr | None = None
    """`redis://…`. Unset: the embedded Redis."""
    database_pool: int = Field(default=10, ge=2, le=200)
    """Connections per process."""

    keys: Annotated[dict[str, SecretStr], NoDecode] = {"dev": SecretStr(DEVELOPMENT_SECRET)}
    """Key-encryption keys: `name:base64-of-32-bytes`, comma-separated; the first one seals, all of them open."""

    statement_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Ed25519 keys that sign merchants' statements: `name:base64-of-a-32-byte-seed`, comma-separated, the first one signs. Empty: derived."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    base_url: str = "http://127.0.0.1:8000"
    """How suppliers and merchants reach this deployment."""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Peers whose `X-Forwarded-For` is believed (right-most untrusted hop)."""
    admin_cidrs: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = (
        ip_network("127.0.0.0/8"),
        ip_network("::1/128"),
        ip_network("10.0.0.0/8"),
        ip_network("172.16.0.0/12"),
        ip_network("192.168.0.0/16"),
    )
    """Who may reach `/admin/v1` and `/metrics` at all."""

    rate_reads_per_s: int = Field(default=200, ge=1)
    rate_writes_per_s: int = Field(default=100, ge=1)
    rate_batches_per_min: int = Field(default=10, ge=1)
    rate_reveals_per_s: int = Field(default=5, ge=1)
    rate_numbers_per_s: int = Field(default=20, ge=1)
    """Questions about numbers."""
    rate_auth_failures_per_min: int = Field(default=30, ge=0)
    """Per client address; 0 switches the limit off."""

    webhook_development: bool = False
    """Lets webhooks go to loopback over http. Refused in live mode."""
    webhook_concurrency: int = Field(default=200, ge=1)
    webhook_per_endpoint: int = Field(default=50, ge=1)

    simulator_token: SecretStr | None = None
    """The control token of the supplier simulator; with it `/admin/v1/simulator/{supplier}/knobs` can turn its knobs."""

    supplier_concurrency: int = Field(default=200, ge=1)
    """Supplier calls in flight per worker process."""
    supplier_timeout_s: float = Field(default=30.0, gt=0, le=120)
    supplier_files: Path | None = None
    """A folder of suppliers' files (`*.yaml`) beside those that are shipped; read at start."""
    number_lookup_timeout_s: float = Field(default=0.5, ge=0, le=5)
    """How long an order waits for a supplier's word on who carries its number; 0: nobody is asked, the prefix plan decides."""
    lease_s: int = Field(default=60, ge=5)
    """How long a worker owns a task without renewing. Must exceed the supplier timeout."""
    tick_s: float = Field(default=0.5, gt=0)
    """How often a worker looks for due work by itself."""
    lanes: Annotated[tuple[str, ...], NoDecode] = ("submit", "look_up", "callback", "webhook", "door", "batch", "upkeep")
    """Which kinds of work this worker takes."""

    catalog_sync_s: int = Field(default=21_600, ge=0, le=2_592_000)
    """How often a supplier's whole list is read, where the channel's own clock says nothing else; 0: when somebody asks for it."""
    catalog_changes_s: int = Field(default=300, ge=10, le=86_400)
    """How often a supplier that can tell is asked what of its list has changed."""

    route_shadow: dict[str, bool | int | float | str] | None = None
    """A candidate tuning of the router that is asked beside the live one and decides nothing: a JSON object of its fields."""
    unknown_alarm_s: int = Field(default=600, ge=1)
    """An outcome unknown for longer raises an alarm."""
    approval_above: str = "10000.0000"
    """Operator money movements above this amount need a second person."""
    test_credit_limit: str = "1000000.0000"
    """The most play money `POST /v1/test/balance` may set."""

    keep_tasks_days: int = Field(default=7, ge=1)
    keep_answers_days: int = Field(default=180, ge=1)
    keep_webhook_attempts_days: int = Field(default=30, ge=1)
    keep_callbacks_days: int = Field(default=90, ge=1)
    keep_events_days: int = Field(default=90, ge=1)
    keep_batch_rows_days: int = Field(default=90, ge=1)
    """Rows of batches as merchants sent them, sealed, counted from the end of the batch. What became of each is kept for ever."""
    keep_catalog_days: int = Field(default=180, ge=1, le=3650)
    """Readings of suppliers' lists and answered questions about offers. What anything cost is kept for ever."""
    keep_route_days: int = Field(default=30, ge=1, le=3650)
    """Decisions of the router with their inputs, and routing rules that have ended."""

    alarm_sinks: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """`webhook:URL`, `wecom:URL`, `dingtalk:URL`, `feishu:URL`, `email:ADDRESS`, comma-separated; `#SECRET` after a signed robot's URL."""
    smtp_url: SecretStr | None = None
    """`smtp://user:password@host:587` or `smtps://…:465` for e-mail alarms; `?from=ADDRESS` names the sender."""
    keep_alarms_days: int = Field(default=180, ge=1)
    """Closed alarms."""
    worker_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where a worker serves its own Prometheus metrics, on `host`; 0: not at all."""
    evidence_key_file: Path | None = None
    """The Ed25519 key (PEM, PKCS#8) that signs the heads of the evidence chain. Unset: made of the key-encryption key listed last."""
    anchor_file: Path | None = None
    """Where heads are appended; best on another machine's disk."""
    anchor_bucket: str | None = None
    """`s3://bucket/prefix` with object lock; heads are kept there in COMPLIANCE mode."""
    anchor_bucket_endpoint: str | None = None
    anchor_bucket_region: str = "us-east-1"
    anchor_bucket_key_id: str | None = None
    anchor_bucket_secret: SecretStr | None = None
    """Credentials that may put, list and read; unset: boto3's own chain."""
    anchor_retention_days: int = Field(default=3650, ge=1, le=36500)
    anchor_tsa: str | None = None
    """An RFC 3161 time-stamp authority's address."""
    anchor_every_s: int = Field(default=60, ge=1, le=86400)

    otlp_endpoint: str | None = None
    """Where OpenTelemetry traces go; unset: none are made."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("keys", mode="before")
    @classmethod
    def _read_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        named = (item.split(":", 1) for item in value.split(",") if item.strip())
        return {name.strip(): secret.strip() for name, secret in named}

    @field_validator("trusted_proxies", "admin_cidrs", "lanes", "alarm_sinks", "statement_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fit_for_its_mode(self) -> Self:
        if not self.keys:
            raise ValueError("KAMENG_KEYS needs at least one name:base64 key")
        for name, secret in self.keys.items():
            try:
                size = len(base64.b64decode(secret.get_secret_value(), validate=True))
            except binascii.Error:
                size = 0
            if size != 32 or not name.isalnum() or len(name) > 16:
                raise ValueError(f"KAMENG_KEYS: {name!r} must be alphanumeric (≤ 16) with base64 of exactly 32 bytes")
        if self.lease_s <= self.supplier_timeout_s + 5:
            raise ValueError("KAMENG_LEASE_S must exceed KAMENG_SUPPLIER_TIMEOUT_S by more than 5 seconds")
        if self.mode == "live":
            self._fit_for_live()
        return self

    def _fit_for_live(self) -> None:
        if any(s.get_secret_value() == DEVELOPMENT_SECRET for s in self.keys.values()):
            raise ValueError("live mode refuses the development key: set KAMENG_KEYS")
        if self.database_url is None or self.redis_url is None:
            raise ValueError("live mode needs KAMENG_DATABASE_URL and KAMENG_REDIS_URL")
        if self.webhook_development:
            raise ValueError("live mode refuses KAMENG_WEBHOOK_DEVELOPMENT")
        if not self.base_url.startswith("https://"):
            raise ValueError("live mode needs an https KAMENG_BASE_URL")

    @cached_property
    def kek_bytes(self) -> dict[str, bytes]:
        """Key name → 32 bytes, the sealing key first."""
        return {name: base64.b64decode(secret.get_secret_value()) for name, secret in self.keys.items()}
