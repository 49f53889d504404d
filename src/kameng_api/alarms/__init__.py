"""What a person must know, said once and kept until it is over."""
