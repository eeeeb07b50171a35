"""Converts samples of any common encoding and channel count to 16-bit mono."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from voicechat.audio import g711

Samples: TypeAlias = NDArray[np.int16]


class SampleEncoding(Enum):
    """The encoding of a sample, little-endian. The value is its width in bytes and its
    kind.
    """

    U8 = (1, "unsigned")
    S16 = (2, "signed")
    S24 = (3, "signed")
    S32 = (4, "signed")
    F32 = (4, "float")
    F64 = (8, "float")
    A_LAW = (1, "a-law")
    MU_LAW = (1, "mu-law")

    @property
    def width_bytes(self) -> int:
        """Bytes of one sample of one channel."""
        return self.value[0]


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """The layout of a stream of interleaved samples."""

    encoding: SampleEncoding
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel together."""
        return self.encoding.width_bytes * self.channels


def to_mono_s16(data: bytes, layout: SampleLayout) -> bytes:
    """Convert whole frames (``len(data)`` a multiple of ``layout.frame_bytes``) to
    s16le mono.

    Channels are averaged. Wider integers are truncated to 16 bits. Floats are clipped
    at full scale; NaN becomes 0.
    """
    if layout.encoding is SampleEncoding.S16 and layout.channels == 1:
        return data
    samples = _to_s16(data, layout.encoding)
    if layout.channels > 1:
        total = samples.reshape(-1, layout.channels).sum(axis=1, dtype=np.int32)
        samples = (total // layout.channels).astype(np.int16)
    return samples.astype("<i2", copy=False).tobytes()


def _to_s16(data: bytes, encoding: SampleEncoding) -> Samples:
    match encoding:
        case SampleEncoding.S16:
            return np.frombuffer(data, "<i2")
        case SampleEncoding.U8:
            centred: Samples = np.frombuffer(data, np.uint8).astype(np.int16) - 128
            return centred << 8
        case SampleEncoding.S24:
            top_bytes = np.frombuffer(data, np.uint8).reshape(-1, 3)[:, 1:]
            return np.frombuffer(top_bytes.tobytes(), "<i2")
        case SampleEncoding.S32:
            return (np.frombuffer(data, "<i4") >> 16).astype(np.int16)
        case SampleEncoding.A_LAW:
            return g711.A_LAW[np.frombuffer(data, np.uint8)]
        case SampleEncoding.MU_LAW:
            return g711.MU_LAW[np.frombuffer(data, np.uint8)]
        case SampleEncoding.F32:
            return _float_to_s16(np.frombuffer(data, "<f4"))
        case SampleEncoding.F64:
            return _float_to_s16(np.frombuffer(data, "<f8"))


def _float_to_s16(samples: NDArray[np.floating]) -> Samples:
    within = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
    scaled: Samples = np.rint(within * 32767.0).astype(np.int16)
    return scaled
