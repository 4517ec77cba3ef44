"""The data layer: databases behind OpenSIPS's URLs, their tables and versions."""
