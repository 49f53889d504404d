"""What suppliers list: their products and costs as read last, what changed, and what a person must say about it."""
