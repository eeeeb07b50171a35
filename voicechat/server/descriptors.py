"""The budget of file descriptors: the process' limit, and the part of it that clients
may use.
"""

from contextlib import suppress

try:
    import resource
except ImportError:  # Windows, which has no such limit for sockets.
    resource = None  # type: ignore[assignment]

WANTED = 65_536
"""The soft limit is raised to this, more than any process here needs, as far as the
hard limit allows.
"""
UNLIMITED = 1_000_000


def raise_limit() -> None:
    """Raise this process' soft limit, which its later children inherit."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    # macOS refuses more than its kernel's own limit, whatever the hard limit says.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """Return how many descriptors this process may have."""
    if resource is None:
        return UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def for_clients() -> int:
    """Return how many descriptors may be connections of clients: half of the limit.

    The other half serves them: a conversation may need connections to its services,
    pipes to a decoder, and files.
    """
    return max(1, limit() // 2)
