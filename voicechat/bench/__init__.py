"""Benchmarks of this machine's capacity: a server process driven by real clients."""
