"""What may be answered about evidence.

Problem
├── NotSealedYet      not_sealed_yet
Exception
└── ChainBroken       ours, or somebody's: what stands in the database is not what was sealed, or not what was anchored
"""

from kameng_api.kit.errors import Problem


class NotSealedYet(Problem):
    """The order's events are too young to stand in a block. Fact: `retry_after_s`."""

    code = "not_sealed_yet"


class ChainBroken(Exception):
    """The chain in the database does not continue what was sealed or anchored before; nothing more is sealed until a person has looked."""
