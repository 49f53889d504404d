"""Every scenario in the order in which it is played, with what the contract says and how to mend what fails."""

from collections.abc import Awaitable, Callable
from typing import Final

from kameng_api.conformance import order_scenarios as orders
from kameng_api.conformance import webhook_scenarios as webhooks
from kameng_api.conformance.stage import Stage
from kameng_api.conformance.verdicts import Scenario

Play = Callable[[Stage], Awaitable[None]]

SCENARIOS: Final[tuple[tuple[Scenario, Play], ...]] = (
    (Scenario(
        "order_placed", "An ordinary order",
        "POST /v1/orders, signed over seven lines, strictly typed; 201 with Location.",
        "Compare your string to sign with POST /v1/test/signature of the kit (or kameng-merchant sign-debug), and your body with docs/quickstart.md.",
    ), orders.placed),
    (Scenario(
        "webhook_valid", "Valid webhooks are taken",
        "Standard Webhooks 1.0; 2xx within 15 s is the only success; anything else is sent again for three days.",
        "Verify over the raw bytes of the body, before any framework parses it; the secret is base64-decoded after `whsec_`. Answer 2xx, also for "
        "orders and events that you do not use.",
    ), webhooks.valid),
    (Scenario(
        "webhook_wrong_signature", "Forged webhooks are refused",
        "webhook-signature is HMAC-SHA256 over id, timestamp and raw body.",
        "Refuse with 400 or 401 whenever none of the v1 signatures fits or a header is missing; compare in constant time; touch nothing before.",
    ), webhooks.wrong_signature),
    (Scenario(
        "webhook_old_timestamp", "Replayed webhooks are refused",
        "webhook-timestamp is the time of the attempt; refuse one that is more than 5 minutes away, either way.",
        "After verifying, compare webhook-timestamp with your clock and refuse beyond 300 s. Keep your clock in step (NTP).",
    ), webhooks.old_timestamp),
    (Scenario(
        "webhook_duplicate", "A repeated webhook counts once",
        "Delivery is at least once: the same webhook-id may come again, also at the same moment.",
        "Remember webhook-id (unique index) or compare data.version, in the same transaction that takes the event; answer 2xx to a repetition.",
    ), webhooks.duplicate),
    (Scenario(
        "webhook_reordered", "A late older version does not overwrite a newer one",
        "Ordering is not promised: consumers compare data.version.",
        "UPDATE … WHERE version < :new, and answer 2xx when nothing was updated.",
    ), webhooks.reordered),
    (Scenario(
        "webhook_reversal", "A reversal after success is taken",
        "Final states do not change; a later refund grows version and refunded_amount and is told as order.refunded.",
        "Do not stop listening at a final state: book the refund, keep the new version.",
    ), webhooks.reversal),
    (Scenario(
        "webhook_unknown_type", "Unknown event types are tolerated",
        "More event types will be added: ignore those you do not know.",
        "Answer 2xx before, or whatever, you look at `type`.",
    ), webhooks.unknown_type),
    (Scenario(
        "webhook_unknown_fields", "Unknown fields are tolerated",
        "The contract changes only by adding.",
        "Let your JSON mapper ignore members that it does not know.",
    ), webhooks.unknown_fields),
    (Scenario(
        "webhook_two_signatures", "A secret can be rotated",
        "For 24 hours after a rotation both secrets sign: several signatures, separated by spaces, in one header.",
        "Split webhook-signature at spaces and accept if any v1 signature fits; skip versions that you do not know.",
    ), webhooks.two_signatures),
    (Scenario(
        "webhook_large", "A large body is taken",
        "Events grow by adding; card codes are never in them.",
        "Let your web server and framework accept bodies of at least 256 KB at the callback.",
    ), webhooks.large),
    (Scenario(
        "order_timeout", "No answer: the same number again",
        "5xx or no answer: unknown. Send the same body and number again, signed anew, or GET by your own number; never invent a new number.",
        "Create the number once, store it before the first attempt, and repeat with it.",
    ), orders.timeout),
    (Scenario(
        "order_500", "500: the same number again",
        "5xx: unknown to the caller. The same body and number again, signed anew.",
        "Treat 5xx like a timeout.",
    ), orders.server_error),
    (Scenario(
        "order_replayed", "200 with Idempotent-Replayed is a success",
        "Same number, same content: 200, the same object as it is now, Idempotent-Replayed: true.",
        "Take 200 and 201 alike.",
    ), orders.replayed),
    (Scenario(
        "order_conflict", "409 is looked into, not dodged",
        "Same number, other content: 409 merchant_order_no_conflict with existing_order_id, retry: query_first.",
        "GET the existing order and let a person decide; two of your processes may share a counter.",
    ), orders.conflict),
    (Scenario(
        "order_refused", "A refusal for good is not repeated",
        "Any 4xx: nothing changed, nothing stored; retry: never means that the same request will be refused again.",
        "Tell your customer; do not loop.",
    ), orders.refused),
    (Scenario(
        "order_rate_limited", "429: wait as long as told",
        "429 rate_limited with Retry-After in seconds; nothing was stored, the number may be used again.",
        "Sleep for Retry-After, then send the same number.",
    ), orders.rate_limited),
    (Scenario(
        "order_new_members", "Answers may grow",
        "The contract changes only by adding: ignore members and headers that you do not know.",
        "Let your JSON mapper ignore members that it does not know.",
    ), orders.new_members),
    (Scenario(
        "order_outcome_unknown", "outcome_unknown is not a failure",
        "A supplier timeout is never a failure. Only final states are final; an unknown outcome may still succeed.",
        "While substatus is outcome_unknown neither resell nor refund on your own; wait for the final event.",
    ), orders.outcome_unknown),
    (Scenario(
        "order_clock_skew", "A wrong clock corrects itself",
        "Clock window ±300 s; 401 timestamp_out_of_window carries server_time (unix seconds).",
        "Keep the difference to server_time and sign the same order again by it; keep your clock in step (NTP).",
    ), orders.clock_skew),
    (Scenario(
        "requests_signed", "Every request was well-formed and signed anew",
        "Exactly one Authorization header; a fresh nonce for each attempt; strict JSON.",
        "See what was refused below; sign over the bytes that you send, after serialising once.",
    ), orders.requests_signed),
    (Scenario(
        "webhook_in_time", "Every webhook was answered in time",
        "Connect 5 s, total 15 s.",
        "Store the event, answer 2xx, and do the work afterwards.",
    ), webhooks.in_time),
    (Scenario(
        "webhook_no_redirect", "No webhook was redirected",
        "Redirects are not followed.",
        "Register the final address: https, with or without the slash at the end, as your server has it.",
    ), webhooks.no_redirect),
)  # fmt: skip
