"""The engine between the tiers: every committed byte goes on to the remotes."""
