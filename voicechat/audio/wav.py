"""WAV files for encoders, tests and tools."""

import struct

from voicechat.audio.decode import open_decoder
from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.audio.riff import SIGNATURE_BYTES, UNKNOWN_SIZE, may_be_clip
from voicechat.errors import Fault, RemoteProtocolError

HEADER_BYTES = 44


def wav_header(rate_hz: int, data_bytes: int | None) -> bytes:
    """Return the 44-byte header of s16le mono samples. ``data_bytes`` is None if the
    size is unknown.
    """
    riff_bytes = UNKNOWN_SIZE if data_bytes is None else HEADER_BYTES - 8 + data_bytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", riff_bytes, b"WAVE"),
        *(b"fmt ", 16, 1, 1, rate_hz, rate_hz * 2, 2, 16),
        *(b"data", UNKNOWN_SIZE if data_bytes is None else data_bytes),
    )


def read_wav(data: bytes) -> bytes:
    """Decode a whole WAV file to s16le mono 16 kHz.

    Raises ``RemoteProtocolError``: ``UNDECODABLE_AUDIO`` if it is not a WAV file,
    ``UNSUPPORTED_FORMAT`` if its encoding is not supported.
    """
    if len(data) < SIGNATURE_BYTES or not may_be_clip(data):
        raise RemoteProtocolError(
            Fault.UNDECODABLE_AUDIO, "wav: the file does not begin with RIFF and WAVE"
        )
    decoder = open_decoder(InputFormat(InputContainer.WAV, rate_hz=16000))
    return decoder.decode(data) + decoder.finish_turn()
