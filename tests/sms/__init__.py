"""The SMPP gateway."""
