"""S3 and the stores that speak its language. Knows requests, parts and objects; nothing of tus or of the catalog."""
