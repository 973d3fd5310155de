"""The durable record of uploads, and of the facts that hooks receive."""
