"""The program ``resumable``: what an operator types."""
