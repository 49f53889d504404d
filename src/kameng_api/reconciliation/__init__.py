"""Do their books and ours agree? And: what must always be true."""
