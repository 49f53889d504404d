"""docs/operations, in both languages, says what the code says: settings with their defaults, metrics, alarms, invariants, retention."""

import re
from pathlib import Path

import pytest

from kameng_api.alarms.rules import KINDS
from kameng_api.jobs import metrics, upkeep
from kameng_api.ledger import queries as ledger
from kameng_api.reconciliation import invariants
from kameng_api.settings import DEVELOPMENT_SECRET, Settings
from kameng_api.suppliers.routing import gauges

ROOT = Path(__file__).parents[2]
LANGUAGES = ["docs/operations.md", "docs/operations.zh-CN.md"]
# Defaults that are told in words.
_IN_WORDS = {"keys", "admin_cidrs"}


def _text(page: str) -> str:
    return (ROOT / page).read_text()


def _rows(page: str) -> dict[str, str]:
    """Setting → the default as written."""
    return {m[1]: m[2].strip() for m in re.finditer(r"^\| `KAMENG_([A-Z_]+)` \| ([^|]+) \| [^|]+ \|$", _text(page), re.M)}


@pytest.mark.parametrize("page", LANGUAGES)
def test_every_setting_is_described_and_no_other(page: str) -> None:
    assert set(_rows(page)) == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("page", LANGUAGES)
def test_the_defaults_are_the_codes(page: str) -> None:
    for name, field in Settings.model_fields.items():
        written = _rows(page)[name.upper()]
        if name in _IN_WORDS:
            assert not written.startswith("`"), name
            continue
        default = field.get_default(call_default_factory=True)
        if default is None:
            assert written in {"unset", "未设置"}, name
        elif default == ():
            assert written in {"empty", "空"}, name
        elif isinstance(default, tuple):
            assert written == f"`{','.join(default)}`", name
        else:
            assert written == f"`{str(default).lower() if isinstance(default, bool) else default}`", name


@pytest.mark.parametrize("page", LANGUAGES)
def test_every_gauge_is_described_and_no_unknown_one(page: str) -> None:
    described = set(re.findall(r"`(kameng_[a-z_]+)(?:\{[a-z,]+\})?`", _text(page)))
    ours = {f.name for f in (*metrics.FAMILIES, *gauges.FAMILIES)}
    assert ours <= described
    code = "".join(p.read_text() for p in (ROOT / "src/kameng_api").rglob("*.py"))
    made = set(re.findall(r'(?:Counter|Gauge|Histogram|watch)\(\s*"(kameng_[a-z_]+)"', code))
    assert described - ours <= made | {f"{name}_total" for name in made}
    assert {name for name in made if not {name, f"{name}_total"} & described} == set()


@pytest.mark.parametrize("page", LANGUAGES)
def test_the_labels_of_a_gauge_are_the_codes(page: str) -> None:
    for family in (*metrics.FAMILIES, *gauges.FAMILIES):
        written = f"`{family.name}{{{','.join(family.labels)}}}`" if family.labels else f"`{family.name}`"
        assert written in _text(page)


@pytest.mark.parametrize("page", LANGUAGES)
def test_every_alarm_has_its_place_in_the_runbook(page: str) -> None:
    assert set(re.findall(r"^#### (\w+)$", _text(page), re.M)) == set(KINDS)


@pytest.mark.parametrize("page", LANGUAGES)
def test_every_invariant_has_its_first_suspicion(page: str) -> None:
    named = set(ledger._CHECKS) | set(re.findall(r"^    ([a-z_]+) {2,}\S", invariants.__doc__ or "", re.M))
    assert len(named) > len(ledger._CHECKS) + 10
    for name in named:
        assert f"`{name}`" in _text(page), name


def test_what_is_pruned_is_a_setting(settings: Settings) -> None:
    kept = {name for name in Settings.model_fields if name.startswith("keep_")}
    elsewhere = {"keep_route_days", "keep_catalog_days"}  # jobs.route_chores.turn_days, jobs.catalog_sync.prune_lists
    assert len(upkeep._retention(settings)) == len(kept - elsewhere)


def test_the_two_languages_have_the_same_shape() -> None:
    for english in ("docs/operations.md", "docs/concepts.md"):
        chinese = english.replace(".md", ".zh-CN.md")
        for mark in (r"^#+ ", r"^\|"):
            assert len(re.findall(mark, _text(english), re.M)) == len(re.findall(mark, _text(chinese), re.M)), (chinese, mark)


def test_no_secret_shows_when_settings_are_printed() -> None:
    made = Settings(_env_file=None, alarm_sinks="wecom:https://h/x?key=ROBOTKEY", smtp_url="smtp://u:HUSH@h")
    shown = repr(made) + str(made.model_dump())
    assert not any(word in shown for word in ("ROBOTKEY", "HUSH", DEVELOPMENT_SECRET))
