"""`kameng supplier new`: what it writes passes the contract suite, the twin's traps, the import contracts and mypy, without a line changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kameng_api.cli.scaffold import scaffold
from kameng_api.kit.errors import Invalid, StateConflict

ROOT = Path(__file__).parents[2]
NAME = "thirteenth"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a type checker without its cache, and a supplier that hangs on purpose


def _environment(path: str, bytecode: Path) -> dict[str, str]:
    """Programs import from `path` first. What one of them has compiled the next one finds, outside of every source tree."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(bytecode)}


class Copy:
    """A source tree of its own, which the programs run here import instead of the one they were made from."""

    def __init__(self, root: Path, bytecode: Path) -> None:
        self.root = root
        self._environment = _environment(f"{root / 'src'}{os.pathsep}{root}", bytecode)
        shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for folder in ("tests/suppliers", "tests/simulator", "tests/factories"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "tests" / "conftest.py", root / "tests" / "conftest.py")
        shutil.copy(ROOT / "pyproject.toml", root / "pyproject.toml")
        shutil.copy(ROOT / "README.md", root / "README.md")

    def test(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """These tests of the copy."""
        return self.run("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-p", "no:schemathesis", *arguments)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A program of this Python that imports the copy and nothing of the tree it was made from."""
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env=self._environment, capture_output=True, text=True, check=False, timeout=600
        )


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where compiled modules are kept: where those of this process are, if they have a place of their own. What was compiled of a copy goes again."""
    base = tmp_path_factory.getbasetemp()
    folder = Path(sys.pycache_prefix or tmp_path_factory.mktemp("bytecode"))
    yield folder
    shutil.rmtree(folder / base.relative_to(base.anchor), ignore_errors=True)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, bytecode: Path) -> Copy:
    made = Copy(tmp_path_factory.mktemp("checkout"), bytecode)
    before = {path for path in made.root.rglob("*") if path.is_file()}
    told = made.run("-m", "kameng_api.cli", "supplier", "new", NAME, "--title", "第十三家")
    assert told.returncode == 0, told.stderr
    new = {path.relative_to(made.root).as_posix() for path in made.root.rglob("*") if path.is_file()} - {
        path.relative_to(made.root).as_posix() for path in before
    }
    folder = f"src/kameng_api/suppliers/adapters/{NAME}/"
    assert {path for path in new if not path.startswith(folder)} == {f"tests/suppliers/twins/{NAME}.py"}, "one folder, and its twin"
    assert {path.removeprefix(folder) for path in new if path.startswith(folder) and "examples" not in path} == {
        "__init__.py", "settings.py", "wire.py", "mapping.py", "client.py", "callback.py", "README.md",
    }  # fmt: skip
    return made


def test_the_skeleton_passes_the_contract_suite_and_the_traps_of_its_twin(copy: Copy) -> None:
    suites = ("test_contract.py", "test_registry.py", "test_traps.py")
    ran = copy.test(*(f"tests/suppliers/{suite}" for suite in suites), "-k", f"{NAME} or registry")
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    passed = int(ran.stdout.rsplit(" passed", 1)[0].split()[-1]) if " passed" in ran.stdout else ran.stdout.count(".")
    assert passed > 40, "the suite has seen it"


def test_a_mistake_in_the_skeleton_would_be_seen(copy: Copy) -> None:
    mapping = copy.root / "src" / "kameng_api" / "suppliers" / "adapters" / NAME / "mapping.py"
    right = mapping.read_text(encoding="utf-8")
    try:
        mapping.write_text(right.replace('return Unknown(f"state {_word(state)}")', "return Accepted(supplier_order_no)"), encoding="utf-8")
        ran = copy.test("tests/suppliers/test_contract.py", "-k", NAME)
        assert ran.returncode == 1 and "test_an_unlisted_word_is_unknown" in ran.stdout, ran.stdout[-2000:]
    finally:
        mapping.write_text(right, encoding="utf-8")


def test_the_skeleton_keeps_the_direction_of_imports_and_the_types(copy: Copy) -> None:
    linted = copy.run("-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache")
    assert linted.returncode == 0, linted.stdout[-3000:]
    folder = f"src/kameng_api/suppliers/adapters/{NAME}"
    styled = copy.run("-m", "ruff", "check", "--no-cache", folder, f"tests/suppliers/twins/{NAME}.py")
    assert styled.returncode == 0, styled.stdout
    typed = copy.run("-m", "mypy", "--cache-dir", os.devnull, "--explicit-package-bases", folder, f"tests/suppliers/twins/{NAME}.py")
    assert typed.returncode == 0, typed.stdout[-3000:]


def test_nothing_is_ever_overwritten(copy: Copy) -> None:
    again = copy.run("-m", "kameng_api.cli", "supplier", "new", NAME)
    assert (again.returncode, again.stdout) == (2, "") and "is there already" in again.stderr
    shutil.rmtree(copy.root / "src" / "kameng_api" / "suppliers" / "adapters" / "gone", ignore_errors=True)
    (copy.root / "tests" / "suppliers" / "twins" / "gone.py").write_text("mine = 1\n")
    twin = copy.run("-m", "kameng_api.cli", "supplier", "new", "gone")
    assert twin.returncode == 2 and not (copy.root / "src" / "kameng_api" / "suppliers" / "adapters" / "gone").exists()
    assert (copy.root / "tests" / "suppliers" / "twins" / "gone.py").read_text() == "mine = 1\n"


@pytest.mark.parametrize("name", ["", "Acme", "1st", "a-b", "a b", "../x", "class", "test_x", "world", "conftest", "a" * 41, "x_", "é"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        scaffold(tmp_path, name, "A title")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("title", ["", "a\nb", 'say "x"', "%NAME%", "x" * 65])
def test_a_title_that_would_break_the_source_is_refused(tmp_path: Path, title: str) -> None:
    with pytest.raises(Invalid):
        scaffold(tmp_path, "acme", title)


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    scaffold(tmp_path, "acme", "Acme")
    with pytest.raises(StateConflict):
        scaffold(tmp_path, "acme", "Acme")


def test_without_a_source_tree_it_explains_itself(tmp_path: Path, bytecode: Path) -> None:
    """As where the package was installed from a wheel."""
    shutil.copytree(ROOT / "src" / "kameng_api", tmp_path / "site" / "kameng_api", ignore=shutil.ignore_patterns("__pycache__"))
    told = subprocess.run(
        [sys.executable, "-m", "kameng_api.cli", "supplier", "new", "acme"],
        cwd=tmp_path, env=_environment(str(tmp_path / "site"), bytecode), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert told.returncode == 2 and "Clone the repository" in told.stderr
    assert not (tmp_path / "site" / "kameng_api" / "suppliers" / "adapters" / "acme").exists()
