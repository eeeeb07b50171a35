"""A port for a server that is started later, or never."""

import random
import socket

LOW, HIGH = 10_000, 32_000
"""Below the ports that the system itself gives to clients, and to servers on port 0:
Linux begins at 32768. Such a port would often be taken before a test uses it.
"""


def unused_port() -> int:
    """Return a TCP port on which nobody listens, at any address of this machine."""
    for _ in range(1_000):
        port = random.SystemRandom().randrange(LOW, HIGH)
        try:
            with socket.create_server(("0.0.0.0", port)):
                if not socket.has_ipv6:
                    return port
                with socket.create_server(("::", port), family=socket.AF_INET6):
                    return port
        except OSError:
            continue
    raise AssertionError(f"no port from {LOW} to {HIGH} is free")
