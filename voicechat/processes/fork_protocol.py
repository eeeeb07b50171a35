"""What a fork server and its parent say to each other on the control socket; apart from
both, and free of either.
"""

READY = b"r"
"""Said once by the server: it may be asked to fork."""
REQUEST = b"f"
"""Comes with one descriptor: the socket of a job."""
