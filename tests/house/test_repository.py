"""What stands in the repository, and what must never."""

import re
import tomllib

import pytest
from tests.house.repository import ROOT, files, texts

# The contract's published vectors, and the patterns and forms of secrets that documentation has to show.
PUBLISHED = {
    "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA",
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
}
_SECRET = re.compile(
    r"sk_(?:live|test)_[A-Za-z0-9_-]{16,}|whsec_[A-Za-z0-9+/=]{16,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{30,}|xox[bp]-[A-Za-z0-9-]{10,}|eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{10,}"
)
# Folders of one person's or one machine's own; the split keeps this file from finding itself.
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:wo" r"rk/|ho" r"me/[a-z]|Us" r"ers/[A-Za-z]|ro" r"ot/)|[A-Z]:\\\\Us" r"ers")
_MOBILE = re.compile(r"(?<![0-9A-Za-z.])1[3-9][0-9]{9}(?![0-9A-Za-z])")
# Numbers that stand in the published contract, or are obviously nobody's.
_NOBODY = re.compile(r"1(?:0000000\d\d\d|3800138000|3[89]00000\d\d\d|3\d0000\d{4}|[3-9](\d)\1{8}|[3-9]\d0013\d{4})")

USER_DOCS = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page}.md" for page in ("quickstart", "concepts", "signing", "errors", "webhooks", "operations", "routing", "suppliers")),
)


def test_no_secret_is_in_the_repository() -> None:
    found = {
        f"{file}: {match[:12]}…"
        for file, text in texts().items()
        for match in _SECRET.findall(text)
        if match.replace("sk_live_", "sk_test_") not in PUBLISHED  # the vector also serves to test what logs hide
    }
    assert not found


def test_no_path_of_somebodys_machine_is_in_the_repository() -> None:
    found = [f"{file}: {match.group()}" for file, text in texts().items() for match in _MACHINE_PATH.finditer(text)]
    assert not found


def test_nothing_made_by_a_tool_is_in_the_repository() -> None:
    made = re.compile(r"(^|/)(__pycache__|\.venv|var|\.mypy_cache|\.pytest_cache|\.DS_Store|node_modules)(/|$)|\.(pyc|sqlite|log|egg-info)$")
    assert [path for path in (p.relative_to(ROOT).as_posix() for p in files()) if made.search(path)] == []
    assert not (ROOT / ".env").exists() or ".env" not in {p.relative_to(ROOT).as_posix() for p in files()}


@pytest.mark.parametrize("file", USER_DOCS)
def test_every_page_for_users_exists_in_chinese_too(file: str) -> None:
    twin = file.replace(".md", ".zh-CN.md")
    assert file in texts() and len(texts()[file]) > 500, file
    assert twin in texts() and len(re.findall(r"[一-鿿]", texts()[twin])) > 200, twin


@pytest.mark.parametrize("file", [f for f in USER_DOCS if f != "README.md"])
def test_the_twins_have_the_same_headings(file: str) -> None:
    def depths(text: str) -> list[int]:
        outside_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        return [len(marks) for marks in re.findall(r"^(#{1,4}) ", outside_code, re.MULTILINE)]

    assert depths(texts()[file]) == depths(texts()[file.replace(".md", ".zh-CN.md")])


@pytest.mark.parametrize("file", ["README.md", "README.zh-CN.md"])
def test_the_readme_says_how_to_begin(file: str) -> None:
    assert "make demo" in texts()[file] and "make test" in texts()[file]


def test_links_between_files_lead_somewhere() -> None:
    broken = []
    for file, text in texts().items():
        if not file.endswith(".md"):
            continue
        outside_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", outside_code):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not ((ROOT / file).parent / target).exists():
                broken.append(f"{file} -> {target}")
    assert not broken


def test_make_help_names_every_target() -> None:
    makefile = texts()["Makefile"]
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    told = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    assert targets == told
    assert {"setup", "demo", "test", "lint", "bench", "openapi", "migrate", "fmt", "clean", "help"} <= targets


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads(texts()["pyproject.toml"])["project"]["version"]
    assert re.search(rf"^## .*{re.escape(version)}", texts()["CHANGELOG.md"], re.MULTILINE)


def test_the_licence_is_the_whole_text() -> None:
    text = texts()["LICENSE"]
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_phone_numbers_in_examples_belong_to_nobody() -> None:
    numbers = {(file, number) for file, text in texts().items() if not file.endswith(".lock") for number in _MOBILE.findall(text)}
    found = {f"{file}: {number[:3]}…" for file, number in numbers if not _NOBODY.fullmatch(number)}
    assert not found


def test_decisions_are_numbered_once_and_listed() -> None:
    pages = sorted(file for file in texts() if re.fullmatch(r"docs/decisions/\d{4}-[a-z0-9-]+\.md", file))
    numbers = [page.split("/")[-1][:4] for page in pages]
    assert len(set(numbers)) == len(numbers)
    listed = texts()["docs/decisions/README.md"]
    assert [page for page in pages if page.split("/")[-1] not in listed] == []
