"""What a simulated supplier is and does, as values: accounts, products, knobs, and the JSON that starts a simulator.

Amounts here are decimal strings of the currency unit (`"98.5"`), as in the vendor's protocol; `*_s` are seconds, `*_ms`
milliseconds, `*_rate` shares between 0 and 1. Every `*_s` delay is multiplied by `time_scale`; `*_ms` never is.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from kameng_api.kit.money import parse_amount
from kameng_api.simulator.protocol import FAIL_CODES

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


CallPath = Literal["place", "query", "balance", "products", "product", "changes", "number", "statement"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Role(StrEnum):
    """Who is asked first: the magic targets 6 and 10 behave differently for the two."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class Latency(Model):
    """How long an answer is held back. `lognormal` has its median at `ms`; answers never wait longer than `max_ms`."""

    kind: Literal["none", "fixed", "lognormal"] = "none"
    ms: float = Field(default=0, ge=0)
    sigma: float = Field(default=0.5, ge=0, le=4)
    max_ms: float = Field(default=60_000, ge=0)


class Faults(Model):
    """What befalls an order, by share; drawn per order that is not a magic target."""

    latency: Latency = Latency()
    slow_factor: float = Field(default=1, ge=0, le=1000)  # multiplies latency and async_after_s
    price_factor: float = Field(default=1, gt=0, le=100)  # of every cost, from now on; orders that name less are refused with PRICE_CHANGED

    refuse_rate: Rate = 0
    refuse_code: str = "CHANNEL_MAINTENANCE"  # any of protocol.FAIL_CODES
    partial_rate: Rate = 0  # of orders for more than one unit: one unit fewer is delivered, finally
    contact_staff_rate: Rate = 0
    async_rate: Rate = 0  # answers `processing` now and delivers after async_after_s
    async_after_s: Seconds = 1
    late_failure_rate: Rate = 0  # answers `processing` now and fails with refuse_code after late_failure_after_s
    late_failure_after_s: Seconds = 300
    late_failure_spread_s: Seconds = 0  # plus up to so much, evenly

    hang_rate: Rate = 0  # reads the order and never answers
    hang_point: Literal["before", "after"] = "after"  # the delivery
    reset_rate: Rate = 0  # reads the order and resets the TCP connection
    reset_point: Literal["before", "after"] = "after"  # the delivery
    error_500_rate: Rate = 0  # answers 500 although it delivered
    late_success_rate: Rate = 0  # never answers, says `processing` to look-ups, delivers after late_success_after_s
    late_success_after_s: Seconds = 30

    outage: Literal["none", "http_503", "silent"] = "none"
    flapping_period_s: Seconds = 0  # 0: off; else the first half of each period is well, the second half is http_503

    reversal_rate: Rate = 0
    reversal_after_s: Seconds = 30
    contradiction_rate: Rate = 0
    contradiction_kind: Literal["success_then_failed", "failed_then_success"] = "success_then_failed"
    contradiction_after_s: Seconds = 1

    @field_validator("refuse_code")
    @classmethod
    def _known_code(cls, value: str) -> str:
        if value not in FAIL_CODES:
            raise ValueError(f"refuse_code is one of {', '.join(sorted(FAIL_CODES))}")
        return value


class StatementFaults(Model):
    """How a statement is spoiled, as real vendors spoil theirs. The wallet and the orders stay true; only what is told of them is wrong.

    Which lines are hit follows from the seed and the line alone: the same statement asked again is spoiled in the same way.
    """

    seed: int = 0
    missing_rate: Rate = 0  # lines left out for good
    duplicate_rate: Rate = 0  # lines told twice, the second time under another number
    repeat_rate: Rate = 0  # lines told twice under the same number
    other_day_rate: Rate = 0  # lines told on the day after their own
    amount_rate: Rate = 0  # charges told with another amount
    amount_delta: str = "0.01"  # by which they differ, upwards
    no_reference_rate: Rate = 0  # lines without our reference; the vendor's order number stays
    stranger_rate: Rate = 0  # beside so many lines stands one of an order that was never placed
    truncate_after: int | None = Field(default=None, ge=0)  # the day ends after so many movements, as if there were no more
    reissue: int = Field(default=0, ge=0, le=99)  # above 0: every line carries a new number, as in a statement made anew
    shuffle: bool = False  # lines of a page stand in no order
    balances: bool = True  # False: lines do not say what the wallet held after them

    @field_validator("amount_delta")
    @classmethod
    def _amount(cls, value: str) -> str:
        parse_amount(value)
        return value


class ListFaults(Model):
    """How the product list is spoiled when it is read page by page."""

    fail_after: int | None = Field(default=None, ge=0)  # pages that begin after so many lines are answered with 503
    truncate_after: int | None = Field(default=None, ge=0)  # the list ends after so many lines, as if there were no more


class Knobs(Faults):
    """Everything that can be turned while the simulator runs: the faults of all orders, and those of the account as a whole."""

    seed: int | None = None  # repeatable draws from the moment the knobs are set
    products: dict[str, Faults] = Field(default_factory=dict)  # product code → its own faults instead of the account's

    rate_limit_per_s: int = Field(default=0, ge=0)  # 0: off; above it RATE_LIMITED, nothing is recorded as an order
    capacity: int = Field(default=0, ge=0)  # 0: off; most orders at once (PROCESSING, or their answer held back), above it RATE_LIMITED

    not_found_for_s: Seconds = 0  # look-ups answer ORDER_NOT_FOUND for so long after the order was placed
    idempotent: bool = True  # False: the same reference again is a new order and is delivered again
    wallet_empty_answer: Literal["refuse", "http_500"] = "refuse"

    callback_on_sync_success: bool = False  # also call back for orders that were answered at once
    callback_copies: int = Field(default=1, ge=0, le=10)  # 0: callbacks are lost
    callback_delay_s: Seconds = 0
    callback_batch_s: Seconds = 0  # 0: off; else callbacks wait for the next multiple of so many seconds and leave together
    callback_reorder: bool = False  # a stale PROCESSING arrives after the final callback
    callback_wrong_signature_rate: Rate = 0

    statement: StatementFaults = StatementFaults()
    catalogue: ListFaults = ListFaults()
    outage_paths: tuple[CallPath, ...] = ()  # empty: an outage concerns them all

    def of(self, product_code: str) -> Faults:
        """The faults that an order for `product_code` meets."""
        return self.products.get(product_code, self)


class Product(Model):
    """One line of the vendor's list. `cost` is per unit; with `face_min` and `face_max` set, per 1.00 of face value."""

    code: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    name: str
    type: Literal["topup", "card", "voucher"] = "topup"
    cost: str
    face_value: str | None = None  # what one is worth, where the vendor tells
    face_min: str | None = None
    face_max: str | None = None
    stock: int | None = Field(default=None, ge=0)  # None: the vendor does not count
    on_sale: bool = True
    price_moved: bool = False  # every order is refused with PRICE_CHANGED

    @field_validator("cost", "face_value", "face_min", "face_max")
    @classmethod
    def _amount(cls, value: str | None) -> str | None:
        if value is not None:
            parse_amount(value)
        return value


class SupplierConfig(Model):
    """One simulated supplier account. `products` omitted: the default catalogue."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    app_key: str = Field(pattern=r"^[A-Za-z0-9_-]{4,64}$")
    secret: SecretStr = Field(min_length=16)
    role: Role = Role.PRIMARY
    currency: str = Field(default="CNY", pattern=r"^[A-Z]{3}$")
    balance: str = "100000"  # at creation only: a restart never refills a wallet
    products: tuple[Product, ...] | None = None
    knobs: Knobs = Knobs()  # at creation only

    @field_validator("balance")
    @classmethod
    def _amount(cls, value: str) -> str:
        parse_amount(value)
        return value


class SimulatorConfig(Model):
    """One simulator process. `synchronous` FULL survives loss of power, NORMAL survives kill -9."""

    data: Path
    control_token: SecretStr = Field(min_length=8)
    time_scale: float = Field(default=1.0, gt=0, le=10)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    suppliers: tuple[SupplierConfig, ...] = ()
