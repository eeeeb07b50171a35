"""What a process holds, so that it can be compared exactly."""

import asyncio
import gc
import os
import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yarl

from voicechat.bench.resource_usage import usage_of
from voicechat.server.serve import Running

_DESCRIPTORS = Path("/proc/self/fd")
_INODE = re.compile(r":?\[\d+\]")


@dataclass(frozen=True)
class Holdings:
    """Compared exactly: everything that a session takes and must give back."""

    sessions: int
    resumable: int
    tasks: tuple[str, ...]
    descriptors: dict[str, int]
    children: tuple[str, ...]
    threads: int
    provider_streams: int


def holdings(server: Running, provider_streams: int) -> Holdings:
    return Holdings(
        sessions=server.admission.sessions,
        resumable=server.mount.resumable,
        tasks=tuple(sorted(_name(task) for task in asyncio.all_tasks())),
        descriptors=_descriptors(),
        children=_children(),
        threads=threading.active_count(),
        provider_streams=provider_streams,
    )


@dataclass(frozen=True)
class Memory:
    """Compared by its slope."""

    resident_bytes: int
    objects: int


def memory() -> Memory:
    """After a collection: what is left is held.

    Two things of a bounded number are not counted, because a short run only begins to
    fill them: the URLs that yarl remembers, and cancelled timers, which asyncio throws
    away when there are a hundred of them.
    """
    yarl.cache_clear()
    gc.collect()
    usage = usage_of(os.getpid())
    held = [
        held
        for held in gc.get_objects()
        if not (type(held) is asyncio.TimerHandle and held.cancelled())
    ]
    return Memory(usage.anonymous_bytes if usage else 0, len(held))


def _name(task: "asyncio.Task[object]") -> str:
    """By what it does: tasks that asyncio names itself are numbered."""
    name = task.get_name()
    return (
        name
        if not re.fullmatch(r"Task-\d+", name)
        else getattr(task.get_coro(), "__qualname__", "task")
    )


def _descriptors() -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        try:
            kinds[_INODE.sub("", os.readlink(entry))] += 1
        except OSError:  # the descriptor of this very listing
            continue
    return dict(kinds)


def _children() -> tuple[str, ...]:
    found = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return tuple(sorted(pid for pids in found for pid in pids))
