"""``file://``: another directory or mount."""
