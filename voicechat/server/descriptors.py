"""File descriptors as a budget: how many this process may have, and how many clients
may take.
"""

from contextlib import suppress

try:
    import resource
except ImportError:  # Windows, which has no such limit for sockets.
    resource = None  # type: ignore[assignment]

WANTED = 65_536
"""More than any process here has use for; the limit is raised to it as far as that is
allowed.
"""
UNLIMITED = 1_000_000


def raise_limit() -> None:
    """Raise this process's soft limit, which its later children inherit, as far as it
    may.
    """
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
    """How many descriptors this process may have."""
    if resource is None:
        return UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def for_clients() -> int:
    """How many of them connections of clients may take.

    The other half is for what serves them: each conversation may need connections to
    its services, pipes to a decoder, and files.
    """
    return max(1, limit() // 2)
