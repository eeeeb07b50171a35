"""The conversation socket of the original document."""
