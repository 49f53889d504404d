"""What the house says and does while its database server is killed, full, locked, cut off or has no room."""
