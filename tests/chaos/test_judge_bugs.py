"""The planted bugs still fit the product: each finds what it patches and asks for faults that exist. To see them caught takes longer runs."""

import subprocess
import sys
from pathlib import Path

from tests.chaos import bugs
from tests.chaos.bugs.__main__ import faults_of
from tests.chaos.fleet import ROOT, environment
from tests.chaos.judge import CHECKS

_INVARIANTS = {*(f"I{n}" for n in range(1, 18)), "own"}
_PLANT_ALL = """
import importlib, inspect, sys
from tests.chaos import bugs
modules = [importlib.import_module(f"tests.chaos.bugs.{name}") for name in bugs.NAMES]

def functions():
    homes = [m for name, m in sys.modules.items() if name.startswith("kameng_api.")]
    homes += {id(c): c for m in homes for c in vars(m).values() if isinstance(c, type) and c.__module__.startswith("kameng_api.")}.values()
    return {(home, name): f for home in homes for name, f in list(vars(home).items()) if inspect.isfunction(f)}

def takes(function):
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    return None if inspect.Parameter.VAR_POSITIONAL in kinds else len(kinds)

before = functions()
for module in modules:
    module.plant()
changed = {key: f for key, f in functions().items() if key in before and before[key] is not f}
assert len(changed) >= 10, changed
for (home, name), planted in changed.items():
    assert takes(planted) in (None, takes(before[home, name])), f"{home.__name__}.{name} is called otherwise than it was planted"
from kameng_api.jobs import upkeep
from kameng_api.orders import queries
from kameng_api.tasks import actions
assert "FOR NO KEY UPDATE" not in queries._LOCK
assert not any("lease_token" in sql for sql in (actions._COMPLETE, actions._RESCHEDULE, actions._OWNED, actions._GONE_OF_LANE))
assert "LIMIT $2 * 0" in upkeep._LOST
"""


def test_every_bug_has_a_file_a_story_and_a_recipe() -> None:
    files = {f.stem for f in Path(bugs.__file__).parent.glob("*.py") if not f.stem.startswith("_")}

    assert files == set(bugs.NAMES)
    assert len(bugs.NAMES) >= 12
    assert len(CHECKS) == len(_INVARIANTS)
    for name in bugs.NAMES:
        recipe = bugs.recipe_of(name)
        assert len(bugs.story_of(name)) > 20
        assert recipe.expected, name
        assert recipe.expected <= _INVARIANTS - {"own"}, name  # what only the product itself can see is not caught from outside
        assert recipe.seconds <= 90
        faults_of(recipe)


def test_every_bug_can_still_be_planted() -> None:
    """In a process of its own: what is patched stays patched."""
    done = subprocess.run([sys.executable, "-c", _PLANT_ALL], cwd=ROOT, env=environment({}), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_product_knows_nothing_of_planted_bugs() -> None:
    for file in (ROOT / "src").rglob("*.py"):
        text = file.read_text()
        assert "tests.chaos" not in text, file
        assert not any(name in text for name in bugs.NAMES), file
