"""`python -m tests.suppliers.table`: runs the traps and certificates of every twin and writes their table into docs/suppliers.md.

`--check` runs nothing: it says whether the table has a row for each adapter and a column for each trap and promise.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from tests.suppliers import twins
from tests.suppliers.benches import capabilities_of, connected
from tests.suppliers.certificates import CERTIFICATES, promises
from tests.suppliers.traps import TRAPS

from kameng_api.suppliers.registry import get_adapter, list_adapters

PAGES: Final = ("docs/suppliers.md", "docs/suppliers.zh-CN.md")
BEGIN, END = "<!-- judged: begin -->", "<!-- judged: end -->"
VENDORS: Final = ("<!-- vendors: begin -->", "<!-- vendors: end -->")
_HEADS: Final = {
    PAGES[0]: ("adapter", "vendor", "look-up", "cancel", "callback", "products", "one product", "changes", "statement"),
    PAGES[1]: ("适配器", "供应商", "查单", "撤单", "回调", "商品列表", "单个商品", "变动日志", "对账单"),
}
_MARKS: Final = {"passed": "✓", "failed": "✗", "unset": "–", "unpromised": ""}
_TEST: Final = re.compile(r"test_(a_trap_is_survived|a_promise_holds)\[(?P<name>[a-z_0-9]+)-(?P<what>[a-z_0-9]+)\]$")


class Watching:
    """A pytest plugin that remembers how each test of a twin ended, and what the contract suite said of each adapter."""

    def __init__(self) -> None:
        self.ended: dict[tuple[str, str], str] = {}
        self.contract: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not report.failed:
            return
        found = _TEST.search(report.nodeid)
        if found:
            self.ended[found["name"], found["what"]] = report.outcome
        elif "test_contract.py" in report.nodeid and "[" in report.nodeid:
            inside = report.nodeid.rpartition("[")[2].rstrip("]")
            for adapter in list_adapters():
                if inside == adapter.name or inside.startswith(f"{adapter.name}-"):
                    self.contract[adapter.name, report.outcome] += 1


def list_vendors(page: str) -> str:
    """Every adapter and what it offers, from the adapters themselves."""
    head = _HEADS[page]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for adapter in list_adapters():
        if adapter.simulated:
            continue
        supplier = connected(adapter.name)
        flags = supplier.capabilities
        by = "reference" if flags.query_by_reference else "" if supplier.look_up is None else "their number"
        told = "" if supplier.read_callback is None else "believed" if flags.trusted_callback else "a hint"
        offered = (supplier.cancel, supplier.products, supplier.product, supplier.changed_since, supplier.statement)
        cancel, *rest = ("✓" if call is not None else "" for call in offered)
        lines.append("| " + " | ".join((f"`{adapter.name}`", adapter.title, by, cancel, told, *rest)) + " |")
    return "\n".join(lines)


def write(seen: Watching) -> str:
    """The table: a row for each trap and promise, a column for each vendor."""
    names = twins.names()
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    lines.append("| contract cases | " + " | ".join(_contract(seen, name) for name in names) + " |")
    for what in TRAPS:
        lines.append(f"| {what.replace('_', ' ')} | " + " | ".join(_mark(seen, name, what) for name in names) + " |")
    for what in CERTIFICATES:
        lines.append(f"| *{what}* | " + " | ".join(_mark(seen, name, what) for name in names) + " |")
    notes = [
        f"- {get_adapter(name).title}, {trap.replace('_', ' ')}: {why}" for name in names for trap, why in sorted(twins.get(name).traps.items())
    ]
    return "\n".join([*lines, "", *notes])


def _contract(seen: Watching, name: str) -> str:
    passed, failed = seen.contract[name, "passed"], seen.contract[name, "failed"]
    return f"{passed} ✓" if not failed else f"{failed} ✗ of {passed + failed}"


def _mark(seen: Watching, name: str, what: str) -> str:
    if what in twins.get(name).traps:
        return _MARKS["unset"]
    if what in CERTIFICATES and what not in TRAPS and what not in promises(capabilities_of(name)):
        return _MARKS["unpromised"]
    return _MARKS[seen.ended.get((name, what), "failed")]


def put(text: str, table: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with the table between its marks. Raises ValueError without them."""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError("the page has no marks for the table")
    return f"{before}{marks[0]}\n{table}\n{marks[1]}{after}"


def check(page: str, text: str) -> list[str]:
    """What the tables of the page leave out."""
    if put(text, list_vendors(page), VENDORS) != text:
        return ["the vendors are not listed as they are"]
    table = text.partition(BEGIN)[2].partition(END)[0].splitlines()
    head = [line for line in table if line.startswith("| | ")]
    missing = [name for name in twins.names() if not head or f" {name} |" not in head[0]]
    return missing + [what for what in (*TRAPS, *CERTIFICATES) if not any(what.replace("_", " ") in line.replace("_", " ") for line in table)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="table")
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        wrong = {page: missing for page in PAGES if (missing := check(page, Path(page).read_text(encoding="utf-8")))}
        sys.stdout.write(f"{wrong}\n" if wrong else "the tables are whole\n")
        return bool(wrong)
    seen = Watching()
    ended = pytest.main(["-q", "-n0", "tests/suppliers/test_contract.py", "tests/suppliers/test_traps.py"], plugins=[seen])
    for page in PAGES:
        text = put(Path(page).read_text(encoding="utf-8"), list_vendors(page), VENDORS)
        Path(page).write_text(put(text, write(seen)), encoding="utf-8")
    return int(ended)


if __name__ == "__main__":
    sys.exit(main())
