"""The life of an order: placed, dispatched, settled; never lost, never bought twice."""
