"""Records and interfaces that the rooms share: uploads, replicas, the outbox, listings, hooks."""
