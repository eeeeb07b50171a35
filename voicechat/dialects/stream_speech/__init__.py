"""The recognition socket of the original document."""
