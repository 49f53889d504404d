"""What can be asked of a supplier, which one next, and the adapters."""
