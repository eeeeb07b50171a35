"""The event loop's clock. All deadlines use it."""

import asyncio


def loop_now_s() -> float:
    """Return the running loop's time in seconds. Monotonic; virtual in tests."""
    return asyncio.get_running_loop().time()
