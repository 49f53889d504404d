"""What can be seen in the source or the lock file alone: how secrets are compared, and under which licences we ship."""

import ast
import re
from importlib import metadata
from pathlib import Path

from tests.house.repository import ROOT, modules

_SECRET_NAME = re.compile(r"(^|_)(signature|mac|hmac|digest|secret|token|hmac_key)$")
# Compared to our own stored copy, never to what a caller sent. (A hash of a token may be compared as it is: nobody can choose it.)
_PUBLIC = {
    "src/kameng_api/evidence/verify.py", "src/kameng_api/evidence/checks.py", "src/kameng_api/evidence/rules.py",
}  # fmt: skip
_REFUSED_LICENCES = re.compile(r"(?i)\b(AGPL|Affero|SSPL|Server Side Public|Elastic License|BUSL|Business Source|Commons Clause)")


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_secrets_are_compared_in_constant_time_only() -> None:
    found, seen = [], 0
    for file, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) == "compare_digest":
                seen += 1
            if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                continue
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Constant) for side in sides) or file in _PUBLIC:
                continue
            if any(_SECRET_NAME.search(_name(side)) for side in sides):
                found.append(f"{file}:{node.lineno}")
    assert seen >= 3
    assert found == []


def test_what_is_shipped_carries_no_licence_that_binds_our_users() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)
    assert len(names) > 30
    refused, unknown = [], []
    for name in names:
        try:
            found = metadata.metadata(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        told = " ".join([found.get("License-Expression") or "", (found.get("License") or "")[:200], *(found.get_all("Classifier") or [])])
        if _REFUSED_LICENCES.search(told):
            refused.append(name)
        if not re.search(r"(?i)licen|MIT|BSD|Apache|PSF|MPL|ISC|Unlicense", told):
            unknown.append(name)
    assert refused == []
    assert unknown == []


def test_the_lock_is_read_from_where_it_says() -> None:
    """Every pin is one exact version with at least one hash; nothing comes from a URL or an editable folder."""
    for file in ("requirements.lock", "requirements-dev.lock"):
        text = (Path(ROOT) / file).read_text(encoding="utf-8")
        pins = re.findall(r"^[A-Za-z0-9_.\[\]-]+==[^\s\\;]+.*\\\n(?: +--hash=sha256:[0-9a-f]{64})", text, re.MULTILINE)
        lines = [line for line in text.splitlines() if line and line[0] not in " #"]
        assert len(pins) == len(lines), file
        assert "://" not in re.sub(r"#.*", "", text)
