"""Checks of an installation; each finding says what to change."""
