"""Judgement as values: a fault with a stable code, a finding per scenario, a report over all, and the exit status that follows from it."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from kameng_api.conformance.trace import Exchange

ALL_PASSED: Final = 0
SOME_FAILED: Final = 1
SOME_NOT_CHECKED: Final = 4


class Verdict(StrEnum):
    """How a scenario ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not_checked"
    """Something needed to see it was missing. Never counted as passed."""


class NotChecked(Exception):
    """The scenario cannot be judged any further; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing the merchant's software did wrong. `code` is stable, `said` is for people and holds no secret."""

    code: str
    said: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is played, what the contract says about it, and how to mend what fails."""

    key: str
    title: str
    contract: str
    mend: str


@dataclass(slots=True)
class Finding:
    """What one scenario showed."""

    scenario: Scenario
    faults: list[Fault] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        if self.faults:
            return Verdict.FAILED
        return Verdict.NOT_CHECKED if self.unchecked else Verdict.PASSED

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "scenario": self.scenario.key,
            "title": self.scenario.title,
            "verdict": self.verdict.value,
            "faults": [{"code": fault.code, "said": fault.said} for fault in self.faults],
            "not_checked_because": self.unchecked,
            "notes": self.notes,
            "contract": self.scenario.contract,
            "mend": self.scenario.mend,
            "exchanges": [exchange.shown() for exchange in self.exchanges],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    started_at: str
    callback: str
    base_url: str
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(finding.verdict for finding in self.findings)
        return {verdict.value: found[verdict] for verdict in Verdict}

    def exit_status(self, *, allow_unchecked: bool = False) -> int:
        """0 everything was checked and passed; 1 something failed; 4 nothing failed, but not everything was checked."""
        counts = self.counts
        if counts[Verdict.FAILED]:
            return SOME_FAILED
        return SOME_NOT_CHECKED if counts[Verdict.NOT_CHECKED] and not allow_unchecked else ALL_PASSED

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "started_at": self.started_at,
            "callback": self.callback,
            "base_url": self.base_url,
            "counts": self.counts,
            "findings": [finding.shown() for finding in self.findings],
        }
