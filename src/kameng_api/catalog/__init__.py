"""What can be bought, by whom, at what price, and from which channels."""
