"""Azure Blob Storage. Knows the SDK, blocks and blobs; nothing of tus or of the catalog."""
