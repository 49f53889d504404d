"""Static priority: the cheapest channel of t=0 first, the next one only after a definite failure.

Source: the rule list every aggregator starts with (Hyperswitch calls it "priority routing", version 2025-03); no constants, no memory.
"""

from benchmarks.routing.policies.rival import Priority


class StaticPriority(Priority):
    """Price order at t=0; health is ignored."""
