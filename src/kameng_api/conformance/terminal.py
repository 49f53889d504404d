"""The report for people at a terminal: a line per scenario, and below it only what must be done."""

from typing import Final

from rich.console import Console
from rich.markup import escape

from kameng_api.conformance.trace import Exchange
from kameng_api.conformance.verdicts import Finding, Report, Verdict

_MARKS: Final = {
    Verdict.PASSED: "[green]✔ passed     [/green]",
    Verdict.FAILED: "[bold red]✘ failed     [/bold red]",
    Verdict.NOT_CHECKED: "[yellow]· not checked[/yellow]",
}
_SHOWN: Final = 3


def print_finding(console: Console, finding: Finding) -> None:
    """One scenario as it ends."""
    scenario = finding.scenario
    console.print(f"{_MARKS[finding.verdict]} {escape(scenario.title)} [dim]{scenario.key}[/dim]")
    for fault in finding.faults:
        console.print(f"    [red]{escape(fault.said)}[/red] [dim]({fault.code})[/dim]")
    for reason in finding.unchecked:
        console.print(f"    [yellow]{escape(reason)}[/yellow]")
    for note in finding.notes:
        console.print(f"    [dim]{escape(note)}[/dim]")
    if finding.faults:
        console.print(f"    the contract says: {escape(scenario.contract)}")
        console.print(f"    how to mend it:    {escape(scenario.mend)}")
        for exchange in finding.exchanges[-_SHOWN:]:
            console.print(f"    [dim]{escape(_line(exchange))}[/dim]")


def print_sum(console: Console, report: Report) -> None:
    """The last line."""
    counts = report.counts
    console.print(
        f"\n[green]{counts[Verdict.PASSED]} passed[/green], [red]{counts[Verdict.FAILED]} failed[/red], "
        f"[yellow]{counts[Verdict.NOT_CHECKED]} not checked[/yellow]"
    )


def _line(exchange: Exchange) -> str:
    answer = exchange.status if exchange.status is not None else exchange.trouble or "no answer yet"
    return f"{exchange.who}: {exchange.request} → {answer}"
