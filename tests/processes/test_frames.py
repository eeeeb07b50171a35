import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import LocalProtocolError
from voicechat.processes.frames import (
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameKind,
    decode_count,
    encode,
    encode_count,
    read_frame,
    read_frame_blocking,
)

frames = st.builds(
    Frame, st.sampled_from(FrameKind), st.integers(0, 2**32 - 1), st.binary(max_size=50)
)


async def read_all(content: bytes) -> list[Frame]:
    stream = asyncio.StreamReader()
    stream.feed_data(content)
    stream.feed_eof()
    found: list[Frame] = []
    while not stream.at_eof():
        found.append(await read_frame(stream))
    return found


@given(st.lists(frames, max_size=5))
def test_both_readers_give_back_what_was_encoded(sent: list[Frame]) -> None:
    content = b"".join(map(encode, sent))
    blocking = io.BytesIO(content)
    assert [read_frame_blocking(blocking) for _ in sent] == sent
    assert read_frame_blocking(blocking) is None
    assert asyncio.run(read_all(content)) == sent


@given(st.binary(max_size=60))
def test_any_bytes_are_frames_or_a_protocol_error(content: bytes) -> None:
    stream = io.BytesIO(content)
    try:
        while (frame := read_frame_blocking(stream)) is not None:
            assert frame.kind in FrameKind
    except LocalProtocolError:
        pass


async def test_half_a_frame_is_an_incomplete_read() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        await read_all(encode(Frame(FrameKind.DATA, 1, b"payload"))[:-1])


def test_a_payload_beyond_the_bound_is_refused_on_both_sides() -> None:
    with pytest.raises(LocalProtocolError):
        encode(Frame(FrameKind.DATA, 1, bytes(MAX_PAYLOAD_BYTES + 1)))
    header = (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little") + bytes([FrameKind.DATA]) + bytes(4)
    with pytest.raises(LocalProtocolError):
        read_frame_blocking(io.BytesIO(header))


def test_counts() -> None:
    assert decode_count(encode_count(3200)) == 3200
    with pytest.raises(LocalProtocolError):
        decode_count(b"123")
