import struct

import av
import numpy as np
import pytest

from voicechat.audio import g711
from voicechat.audio.samples import SampleEncoding, SampleLayout, to_mono_s16


def mono(encoding: SampleEncoding, data: bytes) -> list[int]:
    return list(np.frombuffer(to_mono_s16(data, SampleLayout(encoding, 1)), "<i2"))


@pytest.mark.parametrize(
    ("encoding", "data", "expected"),
    [
        (SampleEncoding.U8, bytes([0, 128, 255]), [-32768, 0, 32512]),
        (SampleEncoding.S16, struct.pack("<3h", -32768, 1, 32767), [-32768, 1, 32767]),
        (
            SampleEncoding.S24,
            b"\xff\x00\x80" + b"\x00\x00\x00" + b"\xff\xff\x7f",
            [-32768, 0, 32767],
        ),
        (SampleEncoding.S32, struct.pack("<3i", -(2**31), 65536, 2**31 - 1), [-32768, 1, 32767]),
        (SampleEncoding.F32, struct.pack("<3f", -1.0, 0.5, 1.0), [-32767, 16384, 32767]),
        (SampleEncoding.F64, struct.pack("<3d", -1.0, 0.5, 1.0), [-32767, 16384, 32767]),
    ],
)
def test_each_encoding_reaches_full_scale_and_zero(
    encoding: SampleEncoding, data: bytes, expected: list[int]
) -> None:
    assert mono(encoding, data) == expected


def test_floats_beyond_full_scale_are_clipped_and_nan_is_silence() -> None:
    data = struct.pack("<5d", 1e300, -1e300, float("inf"), float("-inf"), float("nan"))
    assert mono(SampleEncoding.F64, data) == [32767, -32767, 32767, -32767, 0]


@pytest.mark.parametrize(
    ("codec_name", "table"), [("pcm_alaw", g711.A_LAW), ("pcm_mulaw", g711.MU_LAW)]
)
def test_the_g711_tables_are_those_of_ffmpeg(codec_name: str, table: g711.Table) -> None:
    codec = av.codec.CodecContext.create(codec_name, "r")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate = 8000
    codec.layout = "mono"
    (frame,) = codec.decode(av.Packet(bytes(range(256))))
    assert np.array_equal(frame.to_ndarray()[0], table)


def test_channels_are_averaged_without_overflow() -> None:
    data = struct.pack("<6h", 32767, 32767, -32768, -32768, 1000, 3000)
    averaged = to_mono_s16(data, SampleLayout(SampleEncoding.S16, 2))
    assert struct.unpack("<3h", averaged) == (32767, -32768, 2000)


def test_native_samples_are_not_copied() -> None:
    data = b"\x01\x02" * 160
    assert to_mono_s16(data, SampleLayout(SampleEncoding.S16, 1)) is data
