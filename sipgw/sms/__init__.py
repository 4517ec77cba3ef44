"""Short messages: SMPP both ways, the texts and receipts that it carries, and their translation from and to SIP."""
