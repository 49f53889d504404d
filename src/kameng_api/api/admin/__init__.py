"""The operator's API: bearer tokens with roles, everything audited in the transaction that did it."""
