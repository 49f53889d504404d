"""Which channel is asked next: values in, a decision out. Nothing here does I/O, reads a clock or draws a random number of its own."""
