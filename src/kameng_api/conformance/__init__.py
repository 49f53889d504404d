"""The conformance kit: plays the platform against a merchant's own software and says what that software gets wrong."""

from kameng_api.conformance.options import Options
from kameng_api.conformance.page import html_page
from kameng_api.conformance.play import run
from kameng_api.conformance.terminal import print_finding, print_sum
from kameng_api.conformance.trace import Exchange
from kameng_api.conformance.verdicts import Fault, Finding, Report, Verdict

__all__ = ["Exchange", "Fault", "Finding", "Options", "Report", "Verdict", "html_page", "print_finding", "print_sum", "run"]
