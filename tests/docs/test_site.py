"""The site is built as `make docs` builds it, in both languages, and nothing on it leads nowhere or asks somebody else for a font or a script."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import jsonschema_rs
import pytest
import yaml
from tests.factories.contract import document

from kameng_api.api.problems import CODES
from kameng_api.webhooks.events import EVENT_TYPES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What is read by those who change the code or run the house from a terminal, in English only.
FOR_DEVELOPERS = {"benchmarks", "chaos", "demo", "operator-api", "simulator"}
OPERATORS_ONLY = {"token_invalid", "role_missing"}
METHODS = ("get", "post", "put", "patch", "delete")

_spec = importlib.util.spec_from_file_location("sample_events", DOCS / "site" / "sample_events.py")
assert _spec is not None and _spec.loader is not None
sample_events = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sample_events)


class Page(HTMLParser):
    """Anchors, links, and what a browser loads without being asked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel", "") in ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch"):
            self.loads.append(given["href"])
        if "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if not line.startswith("INFO"))
    return folder


@pytest.fixture(scope="module")
def read(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def contract() -> dict[str, object]:
    return document()


def _dead(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    for path, page in pages.items():
        if path.name == "404.html":  # made for a server's root
            continue
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            file, anchor = urldefrag(link)
            target = (site / file.lstrip("/") if file.startswith("/") else path.parent / unquote(file)).resolve() if file else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and target in pages and unquote(anchor) not in pages[target].anchors):
                yield f"{path.relative_to(site)} -> {link}"


def test_no_link_and_no_anchor_is_dead_in_either_language(site: Path, read: dict[Path, Page]) -> None:
    resolved = {path.resolve(): page for path, page in read.items()}
    assert len(resolved) > 60
    assert list(_dead(site.resolve(), resolved)) == []


def test_the_site_works_without_a_network(read: dict[Path, Page]) -> None:
    foreign = {load for page in read.values() for load in page.loads if urlsplit(load).scheme not in ("", "data") or load.startswith("//")}
    assert not foreign
    assert not [path for path in read if 'class="mermaid"' in path.read_text(encoding="utf-8")], "the theme would fetch mermaid from elsewhere"


def test_every_page_for_users_has_its_chinese_twin() -> None:
    english = {path.stem for path in DOCS.glob("*.md") if not path.name.endswith(".zh-CN.md")}
    chinese = {path.name.removesuffix(".zh-CN.md") for path in DOCS.glob("*.zh-CN.md")}
    assert english - chinese == FOR_DEVELOPERS
    assert chinese <= english


def _named(entries: list[dict[str, object]]) -> Iterator[str]:
    for entry in entries:
        [below] = entry.values()
        if isinstance(below, list):
            yield from _named(below)
        else:
            assert isinstance(below, str)
            yield below


def test_the_navigation_names_every_page_and_no_other() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text.replace("!!python/object/apply:pymdownx.slugs.slugify", ""))
    named = {page for page in _named(config["nav"]) if not page.startswith(("reference/", "decisions/"))}
    assert named == {path.name for path in DOCS.glob("*.md") if not path.name.endswith(".zh-CN.md")}
    titles = {str(title) for title in re.findall(r"^ +- ([^:]+):", text.partition("\nnav:")[2], re.MULTILINE)}
    [chinese] = [language for language in config["plugins"]["i18n"]["languages"] if language["locale"] == "zh-CN"]
    assert titles - set(chinese["nav_translations"]) == set()


def _operations(contract: dict[str, object]) -> dict[str, dict[str, object]]:
    paths = contract["paths"]
    assert isinstance(paths, dict)
    return {op["operationId"]: op for ops in paths.values() for method, op in ops.items() if method in METHODS}


def _site_data(name: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((DOCS / "site" / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("language", ["", "zh-CN"])
def test_every_endpoint_and_every_event_is_on_the_site(site: Path, read: dict[Path, Page], contract: dict[str, object], language: str) -> None:
    folder = site / language / "reference"
    anchors = {anchor for path in folder.glob("*.html") for anchor in read[path].anchors}
    assert set(_operations(contract)) - anchors == set()
    text = (folder / "event-bodies.html").read_text(encoding="utf-8")
    assert {event for event in EVENT_TYPES if event not in text} == set()


def test_everything_on_the_reference_has_a_chinese_title(contract: dict[str, object]) -> None:
    known = set(_site_data("words.zh-CN.yaml"))
    operations = _operations(contract)
    wanted = {*operations, *EVENT_TYPES, *(tag for op in operations.values() for tag in op["tags"])}  # type: ignore[attr-defined]
    assert wanted - known == set()
    assert known - wanted == set()


def test_the_refusals_told_per_operation_exist_and_every_code_is_told(contract: dict[str, object]) -> None:
    told = yaml.safe_load((DOCS / "site" / "errors.yaml").read_text(encoding="utf-8"))
    assert set(told["operations"]) - set(_operations(contract)) == set()
    own = [code for several in told["operations"].values() for code in several]
    common = [code for several in told["every"].values() for code in several]
    derived = {"not_found", "cursor_invalid"}  # told from the path and the parameters
    assert {*own, *common, *told["body"]} | derived | OPERATORS_ONLY == set(CODES)
    assert not {*own, *common, *told["body"]} & (derived | OPERATORS_ONLY)
    assert len(common) + len(told["body"]) == len({*common, *told["body"]} - set(own)), "what everybody may meet is told once"
    assert all(len(several) == len(set(several)) for several in told["operations"].values())
    assert all(CODES[code].status == int(status) for status, several in told["every"].items() for code in several)


def test_examples_are_what_the_contract_says(contract: dict[str, object]) -> None:
    """An event's object is the thing as GET shows it, so the schema of the thing judges the example."""
    examples = _site_data("examples.json")
    events, schemas = examples["events"], examples["schemas"]
    assert isinstance(events, dict) and isinstance(schemas, dict)
    assert events == sample_events.made(), "run `python docs/site/sample_events.py`"
    judged = {name: [example] for name, example in schemas.items()}
    judged["WebhookEvent"] = list(events.values())
    shown_as = {"order.": "OrderResource", "product.": "Product", "statement.": "StatementResource", "batch.": "BatchResource"}
    for event, schema in shown_as.items():
        judged.setdefault(schema, []).extend(body["data"]["object"] for name, body in events.items() if name.startswith(event))
    for name, bodies in judged.items():
        judge = jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": contract["components"]})
        for body in bodies:
            assert [f"{name}: {list(fault.instance_path)} {fault.message}" for fault in judge.iter_errors(body)] == []
    assert all(name == body["type"] for name, body in events.items())
