"""What this machine can hold: a server of its own, driven by real clients, and the
figures that come of it.
"""
