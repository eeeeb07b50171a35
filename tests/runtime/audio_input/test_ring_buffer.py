"""The time line of a connection's audio, and what is kept of it."""

import numpy as np
import pytest

from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, SURPLUS_MS, RingBuffer


def counted(from_ms: int, length_ms: int) -> bytes:
    """Audio in which every sample is the millisecond it stands at."""
    return np.repeat(
        np.arange(from_ms, from_ms + length_ms, dtype="<i2"), BYTES_PER_MS // 2
    ).tobytes()


def test_the_audio_since_a_time_begins_there() -> None:
    buffer = RingBuffer()
    buffer.keep(4_000)
    for start_ms in range(0, 1_000, 100):
        buffer.push(counted(start_ms, 100))
    assert buffer.since(250) == (250, counted(250, 750))


@pytest.mark.parametrize("piece_ms", [20, 100, 700])
def test_only_the_last_of_it_is_kept(piece_ms: int) -> None:
    buffer = RingBuffer()
    buffer.keep(4_000)
    for start_ms in range(0, 21_000, piece_ms):
        buffer.push(counted(start_ms, piece_ms))
    begins_ms, pcm = buffer.since(0)
    assert buffer.end_ms == 21_000
    assert 4_000 <= buffer.end_ms - begins_ms <= 4_000 + SURPLUS_MS
    assert pcm == counted(begins_ms, buffer.end_ms - begins_ms)


def test_of_the_future_there_is_nothing() -> None:
    buffer = RingBuffer()
    buffer.keep(4_000)
    buffer.push(counted(0, 100))
    assert buffer.since(900) == (100, b"")


def test_what_is_skipped_takes_its_time_and_what_came_before_it_is_forgotten() -> None:
    buffer = RingBuffer()
    buffer.keep(4_000)
    buffer.push(counted(0, 100))
    buffer.skip(500 * BYTES_PER_MS)
    buffer.push(counted(600, 100))
    assert buffer.end_ms == 700
    assert buffer.since(0) == (600, counted(600, 100))


def test_audio_before_a_time_is_found_to_the_sample() -> None:
    buffer = RingBuffer()
    buffer.keep(4_000)
    buffer.push(bytes(10))
    buffer.push(counted(0, 1_000))
    frame = buffer.before(500, 32 * BYTES_PER_MS)
    begin = (500 - 32) * BYTES_PER_MS - 10
    assert frame == counted(0, 1_000)[begin : begin + 32 * BYTES_PER_MS]
    assert buffer.before(20, 32 * BYTES_PER_MS) == b""
    assert buffer.before(2_000, 32 * BYTES_PER_MS) == b""


def test_without_anybody_to_keep_it_for_only_time_passes() -> None:
    buffer = RingBuffer()
    buffer.push(counted(0, 1_000))
    assert buffer.since(0) == (1_000, b"")
    buffer.keep(4_000)
    buffer.push(counted(1_000, 10))
    assert buffer.since(0) == (1_000, counted(1_000, 10))
