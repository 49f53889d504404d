"""The registry finds what is there and is loud about what is broken."""

import sys
from pathlib import Path

import pytest

from kameng_api.suppliers import adapters, registry


def test_it_finds_the_simulator() -> None:
    assert registry.get_adapter("simulator").name == "simulator"
    assert [adapter.name for adapter in registry.list_adapters()] == sorted(registry.load_adapters())


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(registry.AdapterNotFound, match="simulator"):
        registry.get_adapter("nobody")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ImportError('no such library')", "does not import"),
        ("", "exports no ADAPTER"),
        ("from kameng_api.suppliers.adapters.simulator import ADAPTER", "calls itself 'simulator'"),
    ],
)
def test_a_broken_folder_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text(source)
    monkeypatch.setattr(adapters, "__path__", [*adapters.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{adapters.__name__}.broken", raising=False)
    with pytest.raises(registry.AdapterBroken, match=f"'broken'.*{said}"):
        registry.load_adapters()
