"""A soak: mixed clients for minutes, while the store flaps, hooks fail and the daemon is restarted. ``make soak``."""
