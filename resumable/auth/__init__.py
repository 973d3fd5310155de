"""Who may do what: authorizers, what an identity may use up, and the guard that http asks."""
