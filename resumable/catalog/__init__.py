"""The durable record of uploads, and of the facts that the outside is told of."""
