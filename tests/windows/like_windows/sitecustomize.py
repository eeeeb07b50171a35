"""What Windows lacks and this server might use, taken away when Python starts.

It is no Windows: paths, handles and the waiting of the event loop are those of the
system at hand.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile

__all__ = ["subprocess", "tempfile"]
"""They look for some of it when they are imported, and know what to do without."""

_MODULES = frozenset({"fcntl", "grp", "pwd", "resource", "termios", "tty", "uvloop"})
_FUNCTIONS = {
    os: "fork forkpty nice getpgid killpg sched_setaffinity sched_getaffinity",
    socket: "send_fds recv_fds",
    tempfile: "NamedTemporaryFile",  # there is one, but nobody can open its file again
    signal: "SIGHUP SIGCHLD SIGPROF SIGUSR1 SIGUSR2 SIGPIPE setitimer",
}


class _Absent:
    """Is asked for modules first, and says that these are not there."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name in _MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}, as on Windows", name=name)


def _not_implemented(*_: object) -> None:
    raise NotImplementedError


for name in _MODULES:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, _Absent)
for module, names in _FUNCTIONS.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
if hasattr(os, "process_cpu_count"):  # Python 3.13's, which asks sched_getaffinity
    vars(os)["process_cpu_count"] = os.cpu_count
# The loop takes its own readers and writers away by the public names: those stay.
for name in ("add_signal_handler", "remove_signal_handler", "add_reader", "add_writer"):
    setattr(asyncio.SelectorEventLoop, name, _not_implemented)
