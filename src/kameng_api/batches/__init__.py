"""Many orders at once: a merchant's batches and files, their rows, and what became of each."""
