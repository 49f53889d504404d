"""What tests of several rooms share: merchants with keys and play money, and a client that signs as a merchant's program does."""
