"""Which troubles a person is told about, how bad each is, and in what words. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kameng_api.kit.clock import wire_time
from kameng_api.kit.log import MASK, mask_text


class Severity(StrEnum):
    """How fast a person must look."""

    INFO = "info"  # worth knowing, nothing to do
    WARNING = "warning"  # today
    CRITICAL = "critical"  # now, also at night


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of trouble: its usual severity and its name in both languages."""

    severity: Severity
    title: str
    title_zh: str


KINDS: Final[dict[str, Kind]] = {
    "order_stuck": Kind(Severity.CRITICAL, "order open long after its deadline", "订单卡住"),
    "unknown_too_old": Kind(Severity.CRITICAL, "supplier outcome unknown for too long", "结果不明超时"),
    "wallet_low": Kind(Severity.WARNING, "wallet at a supplier is low", "上游余额不足"),
    "wallet_paused": Kind(Severity.CRITICAL, "a wallet is below its floor: the channel takes no orders", "上游余额低于底线，渠道暂停"),
    "wallet_ends": Kind(Severity.WARNING, "a wallet at a supplier ends soon at the rate it is spent", "上游余额即将用尽"),
    "document_ending": Kind(Severity.WARNING, "a supplier's document ends soon", "上游资质即将到期"),
    "document_ended": Kind(Severity.CRITICAL, "a supplier's document has ended", "上游资质已过期"),
    "invariant_broken": Kind(Severity.CRITICAL, "the books do not hold", "账目不变量被破坏"),
    "books_stopped": Kind(Severity.CRITICAL, "postings of a book are stopped", "账本停止记账"),
    "wallet_drift": Kind(Severity.WARNING, "a supplier's balance is not what our books explain", "上游余额与账面不符"),
    "lane_late": Kind(Severity.CRITICAL, "due work is not taken", "任务积压"),
    "rollup_lag": Kind(Severity.WARNING, "sums lag behind the books", "汇总滞后"),
    "dead_rows": Kind(Severity.WARNING, "the table of tasks is bloated", "任务表膨胀"),
    "suspense_old": Kind(Severity.WARNING, "money unexplained for a day", "挂账超期"),
    "endpoint_disabled": Kind(Severity.WARNING, "a merchant's webhook endpoint was disabled", "回调地址被停用"),
    "task_parked": Kind(Severity.CRITICAL, "work was given up and waits for a person", "任务搁置"),
    "incident_opened": Kind(Severity.CRITICAL, "facts contradict each other", "异常事件"),
    "horizon_lag": Kind(Severity.WARNING, "events wait behind an old transaction", "事件分发滞后"),
    "channel_open": Kind(Severity.WARNING, "a circuit is open: the channel is asked by probes only", "渠道熔断"),
    "egress_suspect": Kind(Severity.CRITICAL, "many channels fell silent at once: our own way out may be broken", "出口网络疑似故障"),
    "seal_late": Kind(Severity.WARNING, "events wait to be sealed", "存证滞后"),
    "anchor_late": Kind(Severity.WARNING, "a sealed block has not been anchored", "存证锚定滞后"),
    "evidence_broken": Kind(Severity.CRITICAL, "the evidence chain is not what was sealed or anchored", "存证链异常"),
    "restore_open": Kind(Severity.WARNING, "a restore is open: nothing is bought", "恢复未完成，停止采购"),
    "statement_missing": Kind(Severity.WARNING, "a supplier's statement did not come", "上游对账单缺失"),
    "statement_doubted": Kind(Severity.WARNING, "a supplier's statement looks broken and waits for a person", "上游对账单可疑"),
    "wallet_apart": Kind(Severity.CRITICAL, "a wallet and our books are further apart than the limit", "上游余额偏差超限"),
    "books_disagree": Kind(Severity.WARNING, "a supplier's books and ours disagree", "对账不平"),
    "margin_guard": Kind(Severity.WARNING, "a supplier asks more than somebody pays: the offer is held", "进价高于售价，报价已拦截"),
    "offers_held": Kind(Severity.WARNING, "offers are held until a person has looked", "报价待人工复核"),
    "catalog_vanished": Kind(Severity.WARNING, "a supplier's list lacks too much at once: nothing was closed", "上游目录大面积消失，待确认"),
    "catalog_stale": Kind(Severity.WARNING, "a supplier's list has not been read for long", "上游目录长期未同步"),
    "channel_failing": Kind(Severity.WARNING, "a channel fails", "渠道异常"),
}

_RANK: Final = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
_PERSONAL: Final = re.compile(r"(?<![0-9A-Za-z])(?:\+?86)?1[3-9][0-9]{9}(?![0-9A-Za-z])|[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_LONGEST_DETAIL: Final = 500

LEASE_S: Final = 120
"""How long one worker may take to send a batch before another one tries."""
_BACKOFF_S: Final = (10, 30, 60, 120, 300, 600, 1800, 3600)
TRIES: Final = 60
"""After these (about two days) an alarm that no sink takes is marked as given up; it stays in the list."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One open or closed alarm. `sent_to` names the sinks that took it."""

    alarm_id: UUID
    kind: str
    subject: str
    severity: Severity
    detail: str
    count: int
    first_at: datetime
    last_at: datetime
    sent_at: datetime | None
    sent_to: tuple[str, ...]
    send_tries: int
    acknowledged_by: str | None
    closed_at: datetime | None


def clean_detail(text: str) -> str:
    """The sentence without secrets, phone numbers and mail addresses, at most 500 characters."""
    cleaned = _PERSONAL.sub(MASK, mask_text(text))
    return cleaned if len(cleaned) <= _LONGEST_DETAIL else cleaned[: _LONGEST_DETAIL - 1] + "…"


def backoff_s(tries: int) -> int:
    """Seconds until the next try after `tries` ≥ 1 failures."""
    return _BACKOFF_S[min(tries, len(_BACKOFF_S)) - 1]


def worst(alarms: Sequence[Alarm]) -> Severity:
    """The highest severity among them; they are not none."""
    return max((a.severity for a in alarms), key=_RANK.__getitem__)


def sentence(alarm: Alarm) -> str:
    """One alarm as one line that a person can act on."""
    kind = KINDS[alarm.kind]
    again = f" ×{alarm.count}" if alarm.count > 1 else ""
    over = " (over 已恢复)" if alarm.closed_at is not None else ""
    return (
        f"[{alarm.severity}] {alarm.kind} {kind.title_zh}{again}{over}: {alarm.subject}. {alarm.detail} "
        f"(since {wire_time(alarm.first_at)})"
    )


def digest(alarms: Sequence[Alarm], largest_bytes: int) -> str:
    """Several alarms as one text of at most `largest_bytes` in UTF-8; what does not fit is counted, never silently lost."""
    head = f"kameng: {len(alarms)} alarm(s), {worst(alarms)}"
    lines = [head]
    size = len(head.encode())
    ranked = sorted(alarms, key=lambda a: -_RANK[a.severity])
    for n, alarm in enumerate(ranked):
        line = sentence(alarm)
        more = f"… and {len(ranked) - n} more"
        if size + 1 + len(line.encode()) > largest_bytes - (len(more.encode()) + 1 if n + 1 < len(ranked) else 0):
            lines.append(more)
            break
        lines.append(line)
        size += 1 + len(line.encode())
    return "\n".join(lines)
