"""The event loop's clock, which deadlines are kept by."""

import asyncio


def loop_now_s() -> float:
    """Give the running loop's time in seconds; it only goes forward, and in tests it is
    virtual.
    """
    return asyncio.get_running_loop().time()
