"""Proof that nothing was changed afterwards: a signed chain of blocks over every event of the books, and what survives a restore."""
