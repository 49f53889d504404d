"""What a merchant is told of a day: opening, every movement, closing, signed."""
