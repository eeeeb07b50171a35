"""A protocol that exists only here: JSON lines over plain TCP."""
