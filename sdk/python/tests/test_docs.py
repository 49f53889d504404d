"""The pages' code runs as it is printed, from top to bottom, against a real house."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.factories.house import House

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["sdk-python.md", "sdk-python.zh-CN.md"])
def test_the_code_of_the_page_runs(page: str, house: House, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    keys = house.merchant()
    assert keys.secret is not None
    env = {name: value for name, value in os.environ.items() if not name.startswith("KAMENG_")}
    env |= {
        "KAMENG_BASE_URL": house.base_url, "KAMENG_KEY_ID": keys.key_id, "KAMENG_SECRET": keys.secret, "KAMENG_DELIVERY_KEY": keys.delivery_key,
        "PYTHONPATH": str(ROOT / "sdk/python/src"), "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", "\n".join(blocks)],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("succeeded ")
    assert any(line.split(maxsplit=1)[0] in ("not_found", "statement_not_ready") for line in said)
    assert any("order.succeeded" in line for line in said)
