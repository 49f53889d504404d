"""What people keep and ask about a supplier besides its products: papers, contacts, notes, wallets, and whether the connection works."""
