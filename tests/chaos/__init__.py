"""A hostile machine around the real processes: faults drawn from a seed, a history of what clients were told, and a judge from outside."""
