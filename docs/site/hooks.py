"""Gathers what the site is built from: the pages of `docs/`, and the reference that is made from `openapi/kameng.v1.yaml` on the way.

The pages are written for people who read them in the repository; what differs on the site is changed in a copy: the line that leads to the
other language (the site has a switch), and anchors, so that a link into a page leads to the same place in both languages.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import reference
from markdown.extensions.toc import unique
from mkdocs.config.defaults import MkDocsConfig
from pymdownx.slugs import slugify

CHINESE: Final = ".zh-CN.md"
_LANGUAGE_LINE: Final = re.compile(r"^\[(?:English|中文)\]\([^)]+\)\n\n?", re.MULTILINE)
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$")
# What a page links to in the repository → where the site shows the same to people.
_SHOWN_AT: Final = {"(../openapi/kameng.v1.yaml)": "(reference/index.md)", "(site/examples.json)": "(reference/event-bodies.md)"}
_slug: Final = slugify(case="lower")
_gathered: dict[str, Path] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Runs once per language; the pages are gathered once per build."""
    source = str(config.docs_dir)
    if source not in map(str, _gathered.values()):
        folder = Path(tempfile.mkdtemp(prefix="kameng-docs-"))
        gather(Path(source), folder)
        _gathered[source] = folder
        config.docs_dir = str(folder)
        config.nav = with_reference(existing(config.nav or [], folder), folder)
    return config


def on_shutdown() -> None:
    for folder in _gathered.values():
        shutil.rmtree(folder, ignore_errors=True)


def gather(docs: Path, folder: Path) -> None:
    """Fill `folder` with every page, the snippets that pages link to, and the reference."""
    for page in [*docs.glob("*.md"), *docs.glob("decisions/*.md")]:
        copy = folder / page.relative_to(docs)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(for_the_site(page), encoding="utf-8")
    shutil.copytree(docs / "snippets", folder / "snippets", ignore=shutil.ignore_patterns(".*", "*.toml", "__pycache__", "node_modules"))
    for name, text in reference.pages(docs.parent / "openapi" / "kameng.v1.yaml", docs / "site").items():
        copy = folder / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text, encoding="utf-8")


def for_the_site(page: Path) -> str:
    """The page without its language line; a Chinese one also answers to the anchors of its English twin."""
    text = _LANGUAGE_LINE.sub("", page.read_text(encoding="utf-8"), count=1)
    for file, shown in _SHOWN_AT.items():
        text = text.replace(file, shown)
    twin = page.with_name(page.name.replace(CHINESE, ".md"))
    if page.name.endswith(CHINESE) and twin.is_file():
        theirs = [slug for _, slug in headings(twin.read_text(encoding="utf-8"))]
        ours = headings(text)
        lines = text.splitlines()
        if len(theirs) == len(ours):
            for (line, slug), twin_slug in reversed(list(zip(ours, theirs, strict=True))):
                if slug != twin_slug:
                    lines.insert(line, f'<span id="{twin_slug}"></span>\n')
        text = "\n".join(lines) + "\n"
    return text


def headings(text: str) -> list[tuple[int, str]]:
    """Line number (from 0) and anchor of each heading outside of code blocks."""
    found, fenced, taken = [], False, set[str]()
    for number, line in enumerate(text.splitlines()):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (match := _HEADING.match(line)):
            found.append((number, unique(_slug(re.sub(r"[`*]|\]\([^)]*\)|\[", "", match.group(1)), "-"), taken)))
    return found


def existing(nav: list[Any], folder: Path) -> list[Any]:
    """The navigation without pages that are not there; a test says which ones that are."""
    kept: list[Any] = []
    for entry in nav:
        [(title, below)] = entry.items()
        if isinstance(below, list):
            if inner := existing(below, folder):
                kept.append({title: inner})
        elif (folder / below).is_file():
            kept.append(entry)
    return kept


def with_reference(nav: list[Any], folder: Path) -> list[Any]:
    """A tag that came after the navigation was written has its page at the end of the reference."""
    named = {page for section in nav for below in section.values() for entry in below for page in entry.values()}
    for page in sorted(folder.glob("reference/*.md")):
        name = page.relative_to(folder).as_posix()
        if not name.endswith(CHINESE) and name not in named:
            [reference_section] = [section for section in nav if "API reference" in section]
            reference_section["API reference"].append({page.stem.replace("-", " ").capitalize(): name})
    return nav
