"""The HTTP client of remotes, hooks, authorizers and the doctor: treq, with limits, on connections of our own."""
