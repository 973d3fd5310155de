"""Replication: every committed byte is sent on to the remotes."""
