"""How Linux shares the cores between a process and the models that compute beside it."""

import ctypes
import os
import platform
import struct
import sys

SLICE_NS = 100_000
"""The shortest slice that Linux accepts (kernel/sched/syscalls.c)."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""System call numbers (``arch/x86/entry/syscalls/syscall_64.tbl`` and
``include/uapi/asm-generic/unistd.h``). The C libraries have the call since glibc 2.41
only.
"""
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
"""``struct sched_attr`` in its first version: size, policy, flags, niceness, priority,
runtime, deadline, period.
"""
_SCHED_FLAG_RESET_ON_FORK = 1


def ask_for_short_slices() -> bool:
    """Ask Linux to run the calling thread in short slices, so that it gets a core soon
    after it wakes up although models keep all of them busy. Returns whether Linux has
    accepted it.

    The scheduler (EEVDF) first runs the thread whose slice would end first. A thread
    with a short slice gets no more of the cores, but gets its share sooner. Niceness
    alone does not do that here: Linux compares it within a session only
    (``sched_autogroup``), and each model's process has a session of its own. Measured
    with three processes of two threads each on two cores that other work kept busy,
    too: an idle event loop was late by 5 to 6 ms (median) and 17 to 21 ms (99 %)
    without this, by 2 to 3 ms and 9 to 13 ms with it.

    Linux before 6.12 ignores the request. Threads and processes that are started later
    do not inherit it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    asked = _SCHED_ATTR.pack(
        _SCHED_ATTR.size, os.SCHED_OTHER, _SCHED_FLAG_RESET_ON_FORK, niceness, 0, SLICE_NS, 0, 0
    )
    call = ctypes.CDLL(None, use_errno=True).syscall
    # The thread 0 is the calling one; the last 0 are the call's own flags.
    accepted: bool = call(ctypes.c_long(number), 0, asked, 0) == 0
    return accepted
