"""The page from which people upload in a browser."""
