"""One run from beginning to end: the house opens, every scenario is played once, the house closes."""

from collections.abc import Callable

from kameng_api.conformance.callback import Callback
from kameng_api.conformance.catalogue import SCENARIOS, Play
from kameng_api.conformance.hooks import Hooks
from kameng_api.conformance.house import House
from kameng_api.conformance.options import Options
from kameng_api.conformance.stage import Stage
from kameng_api.conformance.trace import Exchange, Redactor
from kameng_api.conformance.verdicts import Finding, NotChecked, Report, Scenario
from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.http import build_client


async def run(
    options: Options,
    *,
    opened: Callable[[str], None] | None = None,
    began: Callable[[Scenario], None] | None = None,
    ended: Callable[[Finding], None] | None = None,
) -> Report:
    """Play every scenario (or `options.only`); `opened` hears the house's address. Raises OSError when its port is taken, ValueError for a
    malformed webhook secret or an unknown scenario.
    """
    chosen = _choose(options)
    redactor = Redactor((options.api_secret, options.webhook_secret), options.target)
    journal: list[Exchange] = []
    client = build_client(max_connections=16, connect_timeout_s=5.0, read_timeout_s=options.wait_s + options.hold_s + 60.0, guard=False)
    house = House(options, redactor, journal)
    stage = Stage(options, house, Callback(options, client, redactor, journal), Hooks(options, client, redactor), journal)
    stage.callback.headers("evt_check", b"")
    started_at = wire_time(utc_now())
    findings = []
    await house.start()
    try:
        if opened is not None:
            opened(house.base_url)
        for scenario, play in chosen:
            if began is not None:
                began(scenario)
            finding = Finding(scenario)
            mark = len(journal)
            stage.begin(finding)
            try:
                await play(stage)
            except NotChecked as missing:
                stage.uncheck(str(missing))
            await stage.end()
            finding.exchanges += journal[mark:]
            findings.append(finding)
            if ended is not None:
                ended(finding)
    finally:
        await stage.close()
        await house.stop()
        await client.aclose()
    return Report(started_at, redactor.url(options.callback), house.base_url, tuple(findings))


def _choose(options: Options) -> list[tuple[Scenario, Play]]:
    strangers = set(options.only) - {scenario.key for scenario, _ in SCENARIOS}
    if strangers:
        raise ValueError(f"there is no scenario {', '.join(sorted(strangers))}")
    return [(scenario, play) for scenario, play in SCENARIOS if not options.only or scenario.key in options.only]
