"""Recordings that commands read and speech files that they write."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import parse_output_format
from voicechat.audio.wav import read_wav, wav_header
from voicechat.cli.command import EXIT_USAGE, CommandError
from voicechat.errors import RemoteProtocolError
from voicechat.providers.interfaces import PCM_RATE_HZ

PIECE_BYTES = PCM_RATE_HZ * 2 // 10
"""100 ms, as most clients send it."""
MAX_RECORDING_BYTES = 1024 * 1024 * 1024

_FORMAT_OF_SUFFIX = {
    ".mp3": "MP3_22050HZ_MONO_128KBPS",
    ".wav": "WAV_22050HZ_MONO_16BIT",
    ".pcm": "PCM_22050HZ_MONO_16BIT",
}


def read_recording(name: str) -> bytes:
    """Read a WAV file, ``-`` for stdin, as s16le mono 16 kHz. CommandError in plain words for anything else."""
    content = sys.stdin.buffer.read(MAX_RECORDING_BYTES + 1) if name == "-" else _read_file(Path(name))
    if len(content) > MAX_RECORDING_BYTES:
        raise CommandError(f"{name}: recordings may have 1 GiB")
    if content[:4] != b"RIFF":
        raise CommandError(
            f"{name}: not a WAV file; this version reads WAV only, later ones all formats "
            "(convert it, for example: ffmpeg -i IN out.wav)"
        )
    try:
        return read_wav(content)
    except RemoteProtocolError as error:
        raise CommandError(f"{name}: {error}") from error


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_RECORDING_BYTES + 1)


async def in_pieces(pcm: bytes) -> AsyncIterator[bytes]:
    """Hand a recording out as a recogniser takes it."""
    for start in range(0, len(pcm), PIECE_BYTES):
        yield pcm[start : start + PIECE_BYTES]


def output_format(path: Path, wished: str | None) -> str:
    """Name the wire contract's output format for a file: the wish, else by the file's suffix."""
    try:
        return parse_output_format(wished or _FORMAT_OF_SUFFIX[path.suffix.lower()]).name
    except KeyError:
        known = ", ".join(_FORMAT_OF_SUFFIX)
        raise CommandError(f"{path}: the suffix is none of {known}; give one, or --format", EXIT_USAGE) from None
    except RemoteProtocolError as error:
        raise CommandError(f"--format: {error}", EXIT_USAGE) from error


class SpeechFile:
    """Encodes synthesised speech into a file's content."""

    def __init__(self, format_name: str) -> None:
        self._format = parse_output_format(format_name)
        self._encoder = open_encoder(self._format)
        self._pieces: list[bytes] = []

    def add(self, pcm: bytes, rate_hz: int) -> None:
        """Append s16le mono speech."""
        self._pieces.append(self._encoder.encode(pcm, rate_hz))

    def content(self) -> bytes:
        """Finish, and give the whole file."""
        self._pieces.append(self._encoder.finish())
        return with_wav_sizes(b"".join(self._pieces))


def with_wav_sizes(stream: bytes) -> bytes:
    """Write the true sizes into the header of a WAV stream, which was begun before they were known.

    Anything else is returned as it is.
    """
    if stream[:4] != b"RIFF":
        return stream
    rate_hz = int.from_bytes(stream[24:28], "little")
    header_bytes = len(wav_header(rate_hz, None))
    samples = stream[header_bytes:]
    return wav_header(rate_hz, len(samples)) + samples
