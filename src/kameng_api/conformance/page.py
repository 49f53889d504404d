"""The report as one HTML file that needs nothing else: to be mailed, printed, attached to a ticket."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from kameng_api.conformance.trace import Exchange
from kameng_api.conformance.verdicts import Finding, Report, Verdict

_MOST_EXCHANGES: Final = 40
_WORDS: Final = {Verdict.PASSED: "passed", Verdict.FAILED: "failed", Verdict.NOT_CHECKED: "not checked"}
_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--bad:#cf222e;--open:#9a6700}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:0}section{border:1px solid var(--line);border-radius:8px;padding:1rem;margin:1rem 0}
.v{float:right;font-weight:600}.passed{color:var(--good)}.failed{color:var(--bad)}.not_checked{color:var(--open)}
dl{display:grid;grid-template-columns:9rem 1fr;gap:.2rem 1rem;margin:.6rem 0}dt{opacity:.7}dd{margin:0}
pre{white-space:pre-wrap;word-break:break-all;background:#8881;padding:.6rem;border-radius:6px;font-size:12.5px;margin:.3rem 0}
summary{cursor:pointer;margin-top:.5rem}table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0}
@media print{details{display:block}section{break-inside:avoid}}
"""


def html_page(report: Report) -> str:
    """The whole page. Everything that came over the wire is escaped."""
    counts = "".join(
        f'<tr><td class="{verdict}">{word}</td><td>{report.counts[verdict]}</td></tr>' for verdict, word in _WORDS.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Kameng conformance report</title><style>{_STYLE}</style></head><body><h1>Kameng conformance report</h1>"
        f"<p>{escape(report.started_at)} · callback {escape(report.callback)} · played as {escape(report.base_url)}</p>"
        f"<table>{counts}</table>{''.join(_section(finding) for finding in report.findings)}</body></html>\n"
    )


def _section(finding: Finding) -> str:
    rows = [*_rows("what is wrong", (f"{fault.said} ({fault.code})" for fault in finding.faults))]
    rows += _rows("not checked", finding.unchecked)
    rows += _rows("noted", finding.notes)
    rows += _rows("the contract says", [finding.scenario.contract])
    if finding.faults:
        rows += _rows("how to mend it", [finding.scenario.mend])
    left_out = len(finding.exchanges) - _MOST_EXCHANGES
    wire = "".join(_exchange(exchange) for exchange in finding.exchanges[:_MOST_EXCHANGES])
    if left_out > 0:
        wire += f"<p>… and {left_out} more</p>"
    opened = " open" if finding.verdict is Verdict.FAILED else ""
    details = f"<details{opened}><summary>what was sent and what came back ({len(finding.exchanges)})</summary>{wire}</details>" if wire else ""
    return (
        f'<section id="{escape(finding.scenario.key)}"><span class="v {finding.verdict.value}">{_WORDS[finding.verdict]}</span>'
        f"<h2>{escape(finding.scenario.title)}</h2><dl>{''.join(rows)}</dl>{details}</section>"
    )


def _rows(term: str, texts: Iterable[str]) -> list[str]:
    return [f"<dt>{term}</dt><dd>{escape(text)}</dd>" for text in texts]


def _exchange(exchange: Exchange) -> str:
    answer = f"← {exchange.status}" if exchange.status is not None else f"← {exchange.trouble or 'no answer yet'}"
    asked = "\n".join([f"{exchange.who}", exchange.request, *_lines(exchange.request_headers), exchange.request_body])
    came = "\n".join([f"{answer}  ({exchange.took_s:.2f} s)", *_lines(exchange.answer_headers), exchange.answer_body])
    return f"<pre>{escape(asked.strip())}\n\n{escape(came.strip())}</pre>"


def _lines(headers: Mapping[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]
