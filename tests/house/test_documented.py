"""What others may meet in an answer, a webhook or a graph is explained, in both languages, and nothing that is gone is."""

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.house.repository import PACKAGE, ROOT

from kameng_api.api.problems import CODES
from kameng_api.webhooks.events import EVENT_TYPES

DOCS = ROOT / "docs"
LANGUAGES = ("", ".zh-CN")


def _page(name: str, language: str) -> str:
    return (DOCS / f"{name}{language}.md").read_text(encoding="utf-8")


def _words(text: str) -> set[str]:
    """Everything written `like this` outside of code blocks; of `name{label}` the name."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {word.partition("{")[0] for word in re.findall(r"`([^`\n]+)`", prose)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_code_is_explained(language: str) -> None:
    explained = _words(_page("errors", language))
    assert set(CODES) - explained == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_code_is_shown_with_its_status(language: str) -> None:
    rows = [line for line in _page("errors", language).splitlines() if line.startswith("|")]
    wrong = {
        code: meaning.status
        for code, meaning in CODES.items()
        if not any(f"`{code}`" in row and str(meaning.status) in row for row in rows)
    }
    assert not wrong, "no table row names the code together with its status"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_event_is_explained(language: str) -> None:
    assert set(EVENT_TYPES) - _words(_page("webhooks", language)) == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_event_is_promised_that_is_never_sent(language: str) -> None:
    promised = {word for word in _words(_page("webhooks", language)) if re.fullmatch(r"(order|balance|product|endpoint)\.[a-z_]+", word)}
    assert promised - set(EVENT_TYPES) == set()


def _metric_names() -> set[str]:
    """As Prometheus shows them: read from the source, so that a metric made only when a process starts is seen too."""
    found: set[str] = set()
    made = re.compile(r"(Counter|Gauge|Histogram|Summary|Family|GaugeMetricFamily|watch)\(\s*\"(kameng_[a-z_]+)\"")
    for path in PACKAGE.rglob("*.py"):
        for kind, name in made.findall(path.read_text(encoding="utf-8")):
            found.add(f"{name.removesuffix('_total')}_total" if kind == "Counter" else name)
    return found


def test_the_metrics_are_found_in_the_source() -> None:
    """The pattern above would miss one made in a new way; what is registered in this process tells."""
    registered = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in REGISTRY.collect()
        if family.name.startswith("kameng_")
    }
    spelt = set(re.findall(r"\"(kameng_[a-z_]+)\"", "".join(path.read_text(encoding="utf-8") for path in _makers())))
    names = _metric_names()
    assert names
    assert registered - names == set()
    assert {name for name in spelt if name not in names and f"{name}_total" not in names} == set()


def _makers() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if "prometheus_client" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_metric_is_explained(language: str) -> None:
    assert _metric_names() - _words(_page("operations", language)) == set()
