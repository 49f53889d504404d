"""What this room refuses.

Problem
├── Invalid            validation_failed   url, event_types or description is not acceptable, one entry per field
├── NotFound           not_found           no such endpoint, or another merchant's
└── StateConflict      state_conflict
    ├── AlreadyRegistered   the same url with the same event types exists; `existing_id` says which
    ├── TooManyEndpoints    the book has its 16
    └── EndpointIsDisabled  resend, replay and ping need an enabled endpoint
"""

from kameng_api.kit.errors import StateConflict


class AlreadyRegistered(StateConflict):
    """Registering again is refused with the id of the first, so that a lost answer leaves no twin behind."""


class TooManyEndpoints(StateConflict):
    """A book has a limited number of endpoints."""


class EndpointIsDisabled(StateConflict):
    """Nothing is sent to a disabled endpoint; enable it first."""
