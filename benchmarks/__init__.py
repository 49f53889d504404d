"""Measures our limits and ourselves in turn, with real processes: `python -m benchmarks NAME`, explained in docs/benchmarks.md."""
