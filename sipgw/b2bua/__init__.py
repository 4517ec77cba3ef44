"""The back-to-back user agent: two dialogs, one on each side, and what passes between them."""
