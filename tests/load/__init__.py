"""Traffic for tests of endurance: phones with the timers of RFC 3261, what they do to each other, and bad networks between."""
