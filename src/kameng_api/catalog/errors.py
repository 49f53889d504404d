"""What the catalogue refuses.

Problem
├── NotFound
│   ├── ProductUnknown    not_found
│   ├── ChannelUnknown    not_found
│   └── RuleUnknown       not_found
├── Invalid               validation_failed   a definition that cannot be sold; raised with pointers
└── StateConflict
    ├── IdentityFixed     state_conflict      what a SKU is may not change under those who sell it
    ├── BarcodeTaken      state_conflict      a barcode means one SKU
    └── ChannelExists     state_conflict      a channel id names one connection for ever
"""

from kameng_api.kit.errors import NotFound, StateConflict


class ProductUnknown(NotFound):
    """No product has this SKU."""


class ChannelUnknown(NotFound):
    """No channel has this id."""


class RuleUnknown(NotFound):
    """No routing rule has this id."""


class IdentityFixed(StateConflict):
    """Type, currency, face value and target of a SKU stay what they were; sell the other thing under another SKU."""


class BarcodeTaken(StateConflict):
    """Another SKU has this barcode."""


class ChannelExists(StateConflict):
    """The channel id is taken."""
