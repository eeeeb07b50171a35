"""Documents as text: what is in an office file, and its division into passages."""
