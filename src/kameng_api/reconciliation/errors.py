"""What cannot be done to a break.

Problem
├── SamePerson     state_conflict     who proposed a resolution may not approve it
└── NotNow         state_conflict     the break is not in a state that allows this step, or the facts under it have changed
"""

from kameng_api.kit.errors import StateConflict


class SamePerson(StateConflict):
    """Maker and checker are two people."""


class NotNow(StateConflict):
    """The step does not fit the break as it stands."""
