"""`kameng …`: starts the processes, and lets an operator with access to the database do what the operator's API does."""

import json
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import SecretStr

from kameng_api import embedded
from kameng_api.cli.later import Commands, list_in, load
from kameng_api.cli.terminal import UNAVAILABLE, Printing, fail, find_servers, read_settings, show, show_list

app = typer.Typer(
    help="Kameng: a hub for top-ups, card codes and vouchers. `--json` anywhere prints JSON.",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
embedded_app = typer.Typer(help="PostgreSQL and Redis from wheels, in ./var.", no_args_is_help=True)
app.add_typer(embedded_app, name="embedded")
list_in(app)

_PROCESSES: Final = {
    "serve": "kameng_api.main:serve",
    "worker": "kameng_api.worker:run",
    "simulator": "kameng_api.simulator.server:run",
    "demo": "kameng_api.demo:run",
    "build_app": "kameng_api.main:build_app",
    "openapi": "kameng_api.api.openapi:texts",
    "migrate": "kameng_api.cli.migrating:upgrade",
    "doctor": "kameng_api.cli.doctor:examine",
}


def _load(process: str) -> Callable[..., Any]:
    loaded: Callable[..., Any] = load(_PROCESSES[process])
    return loaded


@app.command()
def serve(host: str | None = None, port: int | None = None) -> None:
    """Run the HTTP API until SIGTERM."""
    settings = find_servers(read_settings(), with_redis=True)
    update = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    _load("serve")(settings.model_copy(update=update))


@app.command()
def worker(lane: Annotated[list[str] | None, typer.Option(help="may be repeated; all if left out")] = None) -> None:
    """Run the worker until SIGTERM."""
    settings = find_servers(read_settings(), with_redis=True)
    _load("worker")(settings.model_copy(update={"lanes": tuple(lane)}) if lane else settings)


@app.command()
def simulator(
    host: str = "127.0.0.1",
    port: int = 8090,
    data: Annotated[Path | None, typer.Option(help="the SQLite file with the delivery log")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON file; without it two demo suppliers")] = None,
) -> None:
    """Run simulated suppliers, which serve every test key, until SIGTERM."""
    settings = read_settings()
    file = data or settings.var / "simulator.sqlite"
    file.parent.mkdir(parents=True, exist_ok=True)
    if config is not None:
        made = load("kameng_api.simulator:SimulatorConfig").model_validate({**json.loads(config.read_text(encoding="utf-8")), "data": file})
    else:
        token = settings.simulator_token or SecretStr(secrets.token_urlsafe(24))
        made = load("kameng_api.simulator:demo_config")(file, token.get_secret_value())
        if settings.simulator_token is None:
            sys.stdout.write(json.dumps({"control_token": token.get_secret_value()}) + "\n")
    _load("simulator")(host, port, made)


@app.command()
def migrate(revision: str = "head") -> None:
    """Bring the database's schema to this code's, as the owner role."""
    settings = find_servers(read_settings())
    if settings.database_owner_url is None:
        fail("set KAMENG_DATABASE_OWNER_URL: migrations run as the role that owns the schema", UNAVAILABLE)
    _load("migrate")(settings, _beside("alembic.ini"), revision)
    show({"migrated_to": revision})


def _beside(name: str) -> Path:
    """A file of the repository: of the checkout this code stands in, or of the folder the command runs in."""
    folders = (Path(__file__).resolve().parents[3], Path.cwd())
    found = next((folder / name for folder in folders if (folder / name).exists()), None)
    if found is None:
        fail(f"{name} is neither beside the code nor in the current folder", UNAVAILABLE)
    return found


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="end after the scenario; status 0 only if everything held")] = False,
    state: Annotated[Path | None, typer.Option(help="write addresses and keys here as JSON")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the API; 0: a free one")] = 0,
) -> None:
    """The guided tour: everything on this machine, and real orders through it."""
    raise typer.Exit(int(_load("demo")(read_settings(), once=once, state=state, port=port) or 0))


@app.command()
def openapi(
    check: Annotated[bool, typer.Option("--check", help="only say whether the files are the app's")] = False,
) -> None:
    """Write `openapi/*.yaml` from the app, or compare them with it; status 1 when they differ."""
    texts = _load("openapi")(_load("build_app")(read_settings()))
    folder = _beside("openapi") if check else _beside("pyproject.toml").parent / "openapi"
    stale = [file for file, text in texts.items() if not (folder / file).is_file() or (folder / file).read_text(encoding="utf-8") != text]
    if not check:
        folder.mkdir(exist_ok=True)
        for file in stale:
            (folder / file).write_text(texts[file], encoding="utf-8")
    show({"stale" if check else "written": stale})
    if check and stale:
        raise typer.Exit(1)


@embedded_app.command("start")
def start_embedded() -> None:
    """Start both servers; they outlive this command."""
    settings = read_settings()
    try:
        embedded.start(settings.var)
    except embedded.EmbeddedError as trouble:
        fail(str(trouble), UNAVAILABLE)
    _show_embedded(settings.var)


@embedded_app.command("stop")
def stop_embedded() -> None:
    """Stop both servers cleanly."""
    settings = read_settings()
    try:
        embedded.stop(settings.var)
    except embedded.EmbeddedError as trouble:
        fail(str(trouble), UNAVAILABLE)
    _show_embedded(settings.var)


@embedded_app.command("status")
def embedded_status() -> None:
    """Which of the two servers run."""
    _show_embedded(read_settings().var)


def _show_embedded(var: Path) -> None:
    found = embedded.status(var)
    show(
        {
            "place": str(found.place),
            "postgres": {"pid": found.postgres.pid, "answers": found.postgres.answers},
            "redis": {"pid": found.redis.pid, "answers": found.redis.answers},
        }
    )


@app.command()
def doctor(
    whole: Annotated[bool, typer.Option("--whole", help="the monitors read every transfer and order, not the last hour")] = False,
) -> None:
    """Look at everything this deployment needs, and at the monitors M1–M9; status 1 when something is wrong."""
    findings = _load("doctor")(find_servers(read_settings(), with_redis=True), _beside("alembic.ini"), whole=whole)
    show_list([{"check": f.check, "well": f.well, "detail": f.detail} for f in findings], ("check", "well", "detail"))
    if not all(f.well for f in findings):
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    Printing.as_json = "--json" in given
    try:
        app(args=[argument for argument in given if argument != "--json"], prog_name="kameng")
    finally:
        Printing.as_json = False
