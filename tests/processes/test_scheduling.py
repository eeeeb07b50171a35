import ctypes
import os
import struct
import sys
import threading
from collections.abc import Callable

import pytest

from voicechat.processes.scheduling import SLICE_NS, ask_for_short_slices

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
ATTR = struct.Struct("=IIQiIQQQ")


def raw_attributes() -> bytes | None:
    """The calling thread's ``struct sched_attr``; None where that cannot be asked."""
    if sys.platform != "linux" or os.uname().machine not in SCHED_GETATTR:
        return None
    answer = ctypes.create_string_buffer(ATTR.size)
    number = ctypes.c_long(SCHED_GETATTR[os.uname().machine])
    return None if ctypes.CDLL(None).syscall(number, 0, answer, ATTR.size, 0) else answer.raw


pytestmark = pytest.mark.skipif(
    raw_attributes() is None, reason="needs Linux, which lets processes ask for their slices"
)


def attributes() -> tuple[int, ...]:
    """The calling thread's policy, niceness and slice in nanoseconds."""
    raw = raw_attributes()
    assert raw is not None
    _size, policy, _flags, niceness, _priority, slice_ns, _deadline, _period = ATTR.unpack(raw)
    return policy, niceness, slice_ns


def on_a_thread(work: Callable[[], None]) -> list[tuple[int, ...]]:
    """What a thread and one that it starts have afterwards."""
    found: list[tuple[int, ...]] = []

    def first() -> None:
        found.append(attributes())
        work()
        found.append(attributes())
        second = threading.Thread(target=lambda: found.append(attributes()))
        second.start()
        second.join()

    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    return found


def release() -> tuple[int, ...]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def test_the_calling_thread_alone_gets_short_slices() -> None:
    accepted: list[bool] = []
    before, after, of_another = on_a_thread(lambda: accepted.append(ask_for_short_slices()))
    assert accepted == [True]
    assert after[:2] == before[:2]  # Policy and niceness are kept.
    if release() >= (6, 12):
        assert after[2] == SLICE_NS
    assert of_another == before


def test_another_policy_is_kept() -> None:
    accepted: list[bool] = []

    def idle() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        accepted.append(ask_for_short_slices())

    _, after, _ = on_a_thread(idle)
    assert accepted == [False]
    assert after[0] == os.SCHED_IDLE
