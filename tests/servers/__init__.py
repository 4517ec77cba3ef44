"""Real servers for the tests: private ones from Debian's packages, each started once a run when somebody first asks for it."""
