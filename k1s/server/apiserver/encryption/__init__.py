"""Values encrypted at rest: Secrets, or whatever an EncryptionConfiguration lists."""
