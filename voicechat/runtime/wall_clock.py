"""The only module that reads the wall clock, for timestamps that clients see.
Everything else uses the loop's clock.
"""

import time
from datetime import UTC, datetime


def unix_s() -> float:
    """Return the seconds since 1970."""
    return now_ns() / 1e9


def local_time() -> datetime:
    """Return the local time of the server."""
    return datetime.fromtimestamp(unix_s(), tz=UTC).astimezone()


def now_ns() -> int:
    """Return the nanoseconds since 1970, for tracing."""
    return time.time_ns()
