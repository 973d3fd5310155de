"""The use cases: create, append, inspect, concatenate, terminate, read. Knows the tiers, not HTTP."""
