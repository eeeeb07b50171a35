"""Many calls by AudioSocket from one thread, for ``tools.phone_capacity``: raw sockets,
frames that were made before, one clock for all. So the server is what is measured.
"""

import itertools
import selectors
import socket
import statistics
import struct
import time
import uuid
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from voicechat.audio.resample import Resampler
from voicechat.bench.resource_usage import usage_of
from voicechat.bench.server import running_on
from voicechat.dialects.audiosocket.frames import ID, NARROW

FRAME_MS = 20
FRAME_BYTES = 320
WIRE_BYTES = 3 + FRAME_BYTES
EVERY_S = 15.0
"""How often a caller speaks."""
SETTLE_S = 2.0
"""The first seconds set a call's clock."""
FIRST_S = 1.0
"""Drift is from the median of so long at the beginning to that at the end."""
SO_TIMESTAMPNS = 35
"""Of Linux, on all but some rare processors: each read says when its bytes came."""
_STAMP = struct.Struct("qq")
_STAMP_SPACE = socket.CMSG_SPACE(_STAMP.size)


def caller_frames(pcm: bytes) -> list[bytes]:
    """Return what a caller sends in ``EVERY_S``, frame by frame: ``pcm``, which is
    s16le mono at 16 kHz, and silence.
    """
    down = Resampler(16_000, 8_000)
    narrow = (down.push_audio(pcm) + down.finish_stream()) if pcm else b""
    count = round(EVERY_S * 1000 / FRAME_MS)
    whole = narrow[: count * FRAME_BYTES].ljust(count * FRAME_BYTES, b"\0")
    starts = range(0, len(whole), FRAME_BYTES)
    return [_framed(NARROW, whole[start : start + FRAME_BYTES]) for start in starts]


def _framed(kind: int, payload: bytes) -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


@dataclass(slots=True, eq=False)
class _Call:
    line: socket.socket
    at: int
    """Which frame is next."""
    due_s: float = 0.0
    """When it is to be sent."""
    taken_bytes: int = 0
    times_s: "array[float]" = field(default_factory=lambda: array("d"))
    """When each frame came."""
    audible: int = 0
    """Frames that were not silent."""


def hold_calls(
    port: int,
    count: int,
    seconds: float,
    frames: Sequence[bytes],
    pid: int,
    core: int | None = None,
) -> str:
    """Hold so many calls, and measure for so many seconds; returns a line of figures.

    ``pid`` is the server's, for its CPU time; ``core`` the one that this thread is to
    run on.
    """
    with running_on(core), selectors.DefaultSelector() as selector:
        calls = [_open(port, selector, frames, number, count) for number in range(count)]
        lags_ms = array("d")
        _run(selector, calls, frames, SETTLE_S, array("d"))
        began, own_s = usage_of(pid), time.thread_time()
        _run(selector, calls, frames, seconds, lags_ms)
        ended, own_s = usage_of(pid), time.thread_time() - own_s
        for call in calls:
            call.line.close()
    cpu = float("nan")
    if began is not None and ended is not None:
        cpu = (ended.cpu_s - began.cpu_s) * 60 / seconds / count
    late_ms, drifts_ms = _lateness(calls)
    heard = sum(call.audible for call in calls) / sum(len(call.times_s) for call in calls)
    return (
        f"AudioSocket: {count} calls, {len(late_ms)} frames, {heard:.0%} with sound; "
        f"late p50 / p99 / p99.9: {_parts(late_ms)} ms; drift at most "
        f"{max(map(abs, drifts_ms)):.1f} ms; CPU s/min {cpu:.3f}; "
        f"client {own_s / seconds:.0%} busy, late p50 / p99 / p99.9: {_parts(lags_ms)} ms"
    )


def _open(
    port: int,
    selector: selectors.BaseSelector,
    frames: Sequence[bytes],
    number: int,
    count: int,
) -> _Call:
    line = socket.create_connection(("127.0.0.1", port))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    line.sendall(_framed(ID, uuid.uuid4().bytes))
    line.setblocking(False)
    # What the calls say is spread evenly, and so are the server's clocks.
    call = _Call(line, at=number * len(frames) // count)
    selector.register(line, selectors.EVENT_READ, call)
    time.sleep(FRAME_MS / 1000 / 4)
    return call


def _run(
    selector: selectors.BaseSelector,
    calls: Sequence[_Call],
    frames: Sequence[bytes],
    seconds: float,
    lags_ms: "array[float]",
) -> None:
    """Send and receive for so many seconds. ``lags_ms`` gets how late frames were
    sent.
    """
    end_s = time.monotonic() + seconds
    for number, each in enumerate(calls):  # spread evenly over the 20 ms
        each.due_s = time.monotonic() + number / len(calls) * FRAME_MS / 1000
    order = itertools.cycle(calls)
    call, ahead_s = next(order), _ahead_s(0.0)
    while True:
        now_s = time.monotonic()
        if now_s >= end_s:
            return
        while call.due_s <= now_s:
            lags_ms.append((now_s - call.due_s) * 1000)
            call.line.send(frames[call.at])
            call.at = (call.at + 1) % len(frames)
            call.due_s += FRAME_MS / 1000
            call = next(order)
        ahead_s = _ahead_s(ahead_s)
        for key, _ in selector.select(max(0.0, call.due_s - time.monotonic())):
            _take(key.data, ahead_s)


def _ahead_s(before_s: float) -> float:
    """Return how far the wall clock is ahead of ours. Where reading both is interrupted
    it stays what it was.
    """
    began_s = time.monotonic()
    wall_s = time.time()
    ended_s = time.monotonic()
    return before_s if before_s and ended_s - began_s > 50e-6 else wall_s - began_s


def _take(call: _Call, ahead_s: float) -> None:
    """Read what has come. ``ahead_s``: how far the wall clock, which the stamps are of,
    is ahead of ours.
    """
    data, stamps, _, _ = call.line.recvmsg(64 * WIRE_BYTES, _STAMP_SPACE)
    if not data:
        raise ConnectionError("the server has hung up")
    at_s = time.monotonic()
    for _, _, stamp in stamps:
        whole_s, rest_ns = _STAMP.unpack(stamp[: _STAMP.size])
        at_s = whole_s + rest_ns / 1e9 - ahead_s
    before = call.taken_bytes // WIRE_BYTES
    call.taken_bytes += len(data)
    # Of frames that are read at once the stamp is that of the last: the others count as
    # late as that one.
    count = call.taken_bytes // WIRE_BYTES - before
    call.times_s.extend([at_s] * count)
    call.audible += count * any(data[3:FRAME_BYTES])


def _lateness(calls: Sequence[_Call]) -> tuple["array[float]", list[float]]:
    """Return how late the frames of all calls came, sorted, and the drift of each
    call.
    """
    settled, first = round(SETTLE_S * 1000 / FRAME_MS), round(FIRST_S * 1000 / FRAME_MS)
    late_ms, drifts_ms = array("d"), []
    for call in calls:
        times_s = call.times_s[settled - first :]
        behind = [(at_s * 1000 - number * FRAME_MS) for number, at_s in enumerate(times_s)]
        origin_ms = min(behind[:first])
        late_ms.extend(each - origin_ms for each in behind[first:])
        drift_ms = statistics.median(behind[-first:]) - statistics.median(behind[:first])
        drifts_ms.append(drift_ms)
    return array("d", sorted(late_ms)), drifts_ms


def _parts(values_ms: Sequence[float]) -> str:
    ordered = sorted(values_ms)
    return " / ".join(f"{ordered[int(len(ordered) * part)]:.1f}" for part in (0.5, 0.99, 0.999))
