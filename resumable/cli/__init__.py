"""The program ``resumable``: an operator's commands."""
