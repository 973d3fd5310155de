"""Helpers for Deferreds and threads, and calls that not every system has. They know nothing of uploads."""
