"""Helpers for Deferreds and threads. They know nothing of uploads."""
