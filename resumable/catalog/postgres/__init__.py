"""The catalog on PostgreSQL, for several processes that share the uploads."""
