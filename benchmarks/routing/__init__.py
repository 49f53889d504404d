"""The proving ground of the router: simulated suppliers that fail in every way we know, and every known way to choose among them."""
