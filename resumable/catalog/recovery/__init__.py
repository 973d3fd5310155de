"""Recovery of a damaged catalog; loaded only when one is damaged."""
