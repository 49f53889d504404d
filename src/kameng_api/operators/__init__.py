"""Who runs the platform: bearer tokens with roles, money movements that need two people, and the audit trail."""
