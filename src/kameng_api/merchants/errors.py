"""What this room refuses.

Problem
├── NotFound (kit)          not_found             no such merchant or key
├── Invalid (kit)           validation_failed     a scope, network or key that cannot be used
├── NameTaken               state_conflict        another merchant has this name
├── TooManyKeys             state_conflict        more active keys than one merchant may hold
├── UnknownKey              unknown_key           no key has this id
├── KeyExpired              key_expired           revoked, expired, or not valid yet
├── BadSignature            bad_signature         the signature is not this key's over this request
├── AddressNotAllowed       ip_not_allowed        the key's allowlist does not hold the caller's address
├── ScopeMissing            scope_missing         the key may not do this
└── MerchantSuspended       merchant_suspended    the operator has stopped this merchant
"""

from kameng_api.kit.errors import Problem, StateConflict


class NameTaken(StateConflict):
    """Merchants are told apart by name; this one is taken."""


class TooManyKeys(StateConflict):
    """Revoke a key before making another."""


class UnknownKey(Problem):
    """No key has this id."""

    code = "unknown_key"


class KeyExpired(Problem):
    """The key is revoked, expired, or not valid yet."""

    code = "key_expired"


class BadSignature(Problem):
    """The signature was not made with this key over this request."""

    code = "bad_signature"


class AddressNotAllowed(Problem):
    """The request comes from an address outside the key's allowlist."""

    code = "ip_not_allowed"


class ScopeMissing(Problem):
    """The key was not given this right."""

    code = "scope_missing"


class MerchantSuspended(Problem):
    """The operator has stopped this merchant."""

    code = "merchant_suspended"
