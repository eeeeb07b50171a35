"""Knowledge: documents that are parsed, stored and searched, and embeddings."""
