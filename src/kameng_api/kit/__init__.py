"""What every room may use; no business words live here."""
