"""Facts recorded in the transaction that made them true."""
