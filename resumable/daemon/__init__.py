"""The daemon: its service, its start and its stop."""
