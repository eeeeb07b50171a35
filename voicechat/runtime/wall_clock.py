"""The one place that reads the wall clock: for stamps that clients see. Everything else
uses the loop's clock.
"""

import time
from datetime import UTC, datetime


def unix_s() -> float:
    """Seconds since 1970."""
    return now_ns() / 1e9


def local_time() -> datetime:
    """The time where the server stands."""
    return datetime.fromtimestamp(unix_s(), tz=UTC).astimezone()


def now_ns() -> int:
    """Nanoseconds since 1970, as tracing wants them."""
    return time.time_ns()
