"""Every durable step of the house by name, and a process killed before and after each of them."""
