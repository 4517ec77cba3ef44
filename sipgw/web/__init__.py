"""HTTP: one site, on which modules mount what they have to show."""
