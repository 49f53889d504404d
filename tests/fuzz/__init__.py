"""Whatever fits the contract, and whatever does not, over a real socket and signed: no 5xx, and every answer as described."""
