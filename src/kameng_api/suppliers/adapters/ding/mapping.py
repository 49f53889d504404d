"""What Ding's words mean in ours. Pure, and total: whatever is not in these tables is Unknown.

Ding reports in the body: an empty wallet comes with HTTP 500, other failures with 200. Codes and contexts are the vendor's; what each permits us is
our own reading.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kameng_api.suppliers.adapters.ding import wire
from kameng_api.suppliers.port import (
    Accepted,
    Cause,
    Code,
    Delivered,
    HttpAnswer,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Scope,
    Unknown,
)

Verdict = tuple[Scope, RefusalReason]
_CHANNEL_NO: Final = (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED)
_NOT_ELIGIBLE: Final = (Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE)
_INVALID: Final = (Scope.ORDER, RefusalReason.TARGET_INVALID)

# (code, context) of the one error: nothing was bought. A context of None: under any.
REFUSALS: Final[Mapping[tuple[str, str | None], Verdict]] = {
    ("TransientProviderError", "ProviderRefusedRequest"): _CHANNEL_NO,
    ("ProviderError", "ProductUnavailable"): (Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
    ("ProviderError", "RechargeNotAllowed"): _NOT_ELIGIBLE,
    ("RechargeNotAllowed", None): _NOT_ELIGIBLE,
    ("AccountNumberInvalid", "AccountNumberFailedRegex"): _INVALID,
    ("AccountNumberInvalid", "ProviderRefusedRequest"): _INVALID,
    ("InsufficientBalance", None): (Scope.CHANNEL, RefusalReason.WALLET_EMPTY),
    ("ParameterMissing", None): _CHANNEL_NO,
    ("ParameterInvalid", None): _CHANNEL_NO,
    ("ParameterOutOfRange", None): _CHANNEL_NO,
    ("ParameterCombinationInvalid", None): _CHANNEL_NO,
    ("TooManyParameters", None): _CHANNEL_NO,
    ("RequestInvalid", None): _CHANNEL_NO,
    ("BatchItemRefMustBeUnique", None): _CHANNEL_NO,
}
# The request was turned away: nothing was bought.
NOT_SENT: Final[Mapping[str, tuple[str, Cause]]] = {
    "RateLimited": ("rate limited by the supplier", Cause.BUSY),
    "AuthenticationFailed": ("the supplier does not take our key", Cause.UNREACHED),
}
# Unknown on purpose: TransientProviderError/ProviderTimedOut (documented as failed and not charged: the record will say so), OtherError,
# DuplicateTransactionPrevented (an order exists), NearestMatch.
FAILING: Final = frozenset({3, 4, 5})
"""`ResultCode`: 1 done as asked, 2 something near it, 3 transient, 4 invalid, 5 refused."""
READABLE: Final = frozenset({200, 400, 401, 403, 404, 429, 500, 503})
"""HTTP statuses under which a body with one of these codes is theirs; a gateway's 502 and 504 are not among them."""

COMPLETE: Final = frozenset({"Complete", "Completed"})
"""The first was seen live, the second stands in the document."""
UNDER_WAY: Final = frozenset({"Submitted", "Processing", "Cancelling"})
FAILED: Final = frozenset({"Failed", "Cancelled"})


def at_placing(answer: HttpAnswer, reference: str, currency: str, *, cards: bool) -> Outcome:
    """The answer to `SendTransfer`; `cards` where it has to bring a PIN."""
    try:
        found = _read(answer)
        result, errors, record = found.get("ResultCode"), errors_of(found), found.get("TransferRecord")
        if record is not None and not isinstance(record, dict):
            raise wire.Unreadable("TransferRecord")
        if result == 1 and not errors and answer.status == 200 and record is not None:
            outcome = order(record, reference, currency, cards=cards)
            return Unknown("done as asked, and failed") if isinstance(outcome, Refused) else outcome
        if result not in FAILING or len(errors) != 1 or isinstance(result, bool):
            return Unknown(f"HTTP {answer.status}, {len(errors)} codes")
        if record is not None and (_reference_of(record) != reference or record.get("ProcessingState") not in (*FAILED, None, "")):
            return Unknown("an error with a record that says otherwise")
        return _refusal(*errors[0])
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _refusal(code: str, context: str) -> Outcome:
    if code in NOT_SENT:
        return NotSent(*NOT_SENT[code])
    verdict = REFUSALS.get((code, context)) or REFUSALS.get((code, None))
    return Unknown(f"code {_word(code)}/{_word(context)}") if verdict is None else Refused(*verdict, detail=_word(f"{code}/{context}"))


def at_look_up(answer: HttpAnswer, reference: str, currency: str) -> Outcome:
    """The records found under `reference`; each stands in an envelope with its own errors."""
    try:
        found = _read(answer)
        items, more = found.get("Items"), found.get("ThereAreMoreItems")
        if answer.status != 200 or found.get("ResultCode") != 1 or errors_of(found) or not isinstance(items, list) or not isinstance(more, bool):
            return Unknown(f"HTTP {answer.status}, no list")
        if not items and not more:
            return NotFound()
        ours = [item for item in items if isinstance(item, dict) and _reference_of(item.get("TransferRecord")) == reference]
        if len(ours) > 1:  # they do not deduplicate: each was paid
            return Unknown("more than one order under our reference", needs_person=True)
        if more:
            return Unknown("more records than one page")
        return _item(ours[0], reference, currency) if ours else Unknown("an answer about other orders")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _item(item: Mapping[str, Any], reference: str, currency: str) -> Outcome:
    outcome = order(item["TransferRecord"], reference, currency)
    errors = errors_of(item)
    if isinstance(outcome, Refused):
        if any(code == "DuplicateTransactionPrevented" for code, _ in errors):
            return Unknown("another order under our reference")
        said = _refusal(*errors[0]) if len(errors) == 1 else None
        return said if isinstance(said, Refused) else outcome
    return Unknown("a record with errors") if errors else outcome


def order(record: Mapping[str, Any], reference: str, currency: str, *, cards: bool = False) -> Outcome:
    """What a transfer record says; `currency` is that of our account. Raises Unreadable."""
    if _reference_of(record) != reference:
        return Unknown("an answer about another order")
    state = record.get("ProcessingState")
    if not isinstance(state, str):
        raise wire.Unreadable("ProcessingState")
    if state in UNDER_WAY:
        return Accepted(number_of(record))
    if state in FAILED:
        return Refused(*_CHANNEL_NO, detail=state)
    if state not in COMPLETE:
        return Unknown(f"state {_word(state)}")
    params = record.get("ReceiptParams")
    params = params if isinstance(params, dict) else {}
    codes = (Code(str(params["pin"])),) if params.get("pin") else ()
    if cards and not codes:
        return Unknown("complete without its PIN")
    receipt = params.get("providerRef")
    receipt = receipt[:128] if isinstance(receipt, str) and receipt else None
    return Delivered(1, cost_of(record, currency), number_of(record), receipt, codes)


def cost_of(record: Mapping[str, Any], currency: str) -> int | None:
    """`SendValue`, in 1/10000 units. None where it is told in another currency. Raises Unreadable."""
    cost, told_in = charge_of(record)
    return cost if told_in == currency else None


def charge_of(record: Mapping[str, Any]) -> tuple[int, str]:
    """`SendValue`, what the distributor pays, and in which currency, empty where they do not say it. 1/10000 units. Raises Unreadable."""
    price = record.get("Price")
    if not isinstance(price, dict):
        raise wire.Unreadable("Price")
    return wire.charge(wire.decimal(price.get("SendValue"))), str(price.get("SendCurrencyIso") or "")


def number_of(record: Mapping[str, Any]) -> str:
    """Their `TransferRef`. Raises Unreadable."""
    names = record.get("TransferId")
    number = names.get("TransferRef") if isinstance(names, dict) else None
    if not isinstance(number, str) or not 0 < len(number) <= 64:
        raise wire.Unreadable("TransferRef")
    return number


def errors_of(found: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """(code, context) of each. Raises Unreadable."""
    errors = found.get("ErrorCodes")
    if not isinstance(errors, list):
        raise wire.Unreadable("ErrorCodes")
    pairs = [(error.get("Code"), error.get("Context") or "") if isinstance(error, dict) else (None, "") for error in errors]
    if not all(isinstance(code, str) and isinstance(context, str) for code, context in pairs):
        raise wire.Unreadable("ErrorCodes")
    return [(str(code), str(context)) for code, context in pairs]


def _reference_of(record: object) -> str | None:
    names = record.get("TransferId") if isinstance(record, dict) else None
    value = names.get("DistributorRef") if isinstance(names, dict) else None
    return value if isinstance(value, str) else None


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status not in READABLE or not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable(f"HTTP {answer.status}, or not JSON by its content type")
    return wire.read(answer.body)


def _word(text: str) -> str:
    """A word of theirs, short and harmless enough for a log."""
    return text[:60] if text.isascii() and text.replace("_", "").replace("/", "").isalnum() else "odd" if text else ""
