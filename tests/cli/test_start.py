"""What a process imports before it does anything: every command and every process of a deployment pays for it."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from typer.main import get_group

from kameng_api.cli import later
from kameng_api.cli.app import app
from kameng_api.kit.memory import keep_what_is_made
from kameng_api.main import migration_heads, read_heads

ROOT = Path(__file__).parents[2]
_FRAMEWORKS = ("fastapi", "starlette", "uvicorn", "alembic", "mako")
_DATABASE = ("sqlalchemy", "asyncpg", "redis", "aiohttp", "httpx", "arq", "structlog")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("kameng_api.cli.app", (*_FRAMEWORKS, *_DATABASE, "yaml", "phonenumbers", "xlsxwriter", "kameng_api.api", "kameng_api.cli.bench")),
        ("kameng_api.simulator.server", ("fastapi", "sqlalchemy", "asyncpg", "redis", "arq", "alembic", "typer", "kameng_api.api")),
        ("kameng_api.main", ("alembic", "mako", "typer", "xlsxwriter", "phonenumbers.carrier", "phonenumbers.carrierdata", "kameng_api.cli")),
        ("kameng_api.worker", (*_FRAMEWORKS, "typer", "phonenumbers", "kameng_api.cli", "kameng_api.api.admin", "kameng_api.api.deps")),
    ],
)
def test_a_process_imports_only_what_it_runs(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_the_console_script_imports_one_command_and_collects_again() -> None:
    code = (
        "import atexit, gc, sys\n"
        "from kameng_api.cli import main\n"
        "loaded = lambda: sorted(name for name in ('people', 'money', 'doctor', 'conformance') if f'kameng_api.cli.{name}' in sys.modules)\n"
        "atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 10_000, *loaded(), file=sys.stderr))\n"
        "main(['merchant', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "True True people\n")


def test_every_command_is_listed_in_its_own_words() -> None:
    listed = get_group(app).commands
    standing_in = {name: command for name, command in listed.items() if later.find_command(name) is not None}
    assert len(standing_in) > 25 and {"serve", "worker", "embedded"}.isdisjoint(standing_in)
    for name, command in standing_in.items():
        found = later.find_command(name)
        assert (found.help, found.hidden, found.deprecated) == (command.help, command.hidden, command.deprecated), name
        assert getattr(found, "no_args_is_help", False) is hasattr(found, "commands"), name
        assert getattr(found, "commands", True), name


def test_what_is_kept_is_kept_and_the_collector_is_as_it_was() -> None:
    kept_before = gc.get_freeze_count()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), keep_what_is_made():
        made = [[n] for n in range(100)]
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled() and gc.get_freeze_count() >= kept_before + len(made)
    gc.disable()
    try:
        with keep_what_is_made():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_newest_revisions_are_read_as_alembic_reads_them(tmp_path: Path) -> None:
    assert migration_heads() == frozenset(ScriptDirectory(str(ROOT / "migrations")).get_heads())
    branches = {"first": None, "left": "first", "right": "first", "both": ("left", "right"), "after": "both", "aside": "right"}
    (tmp_path / "versions").mkdir()
    for revision, down in branches.items():
        text = f'"""Says revision = in words."""\n\nrevision: str = "{revision}"\ndown_revision = {down!r}\nbranch_labels = None\ndepends_on = None\n'
        (tmp_path / "versions" / f"{revision}.py").write_text(text, encoding="utf-8")
    assert read_heads(tmp_path / "versions") == frozenset(ScriptDirectory(str(tmp_path)).get_heads()) == {"after", "aside"}
