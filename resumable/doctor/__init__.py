"""Looks at an installation, at a moment, and says what to change."""
