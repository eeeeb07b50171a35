"""Reading recordings and writing speech files for commands."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from voicechat.audio.channels import ChannelComparison, mixed
from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import parse_output_format
from voicechat.audio.wav import wav_header
from voicechat.cli.command import EXIT_USAGE, CommandError
from voicechat.errors import RemoteProtocolError
from voicechat.processes.forked import can_fork
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.runtime.decoding import decode_file, open_decoding

PIECE_BYTES = PCM_RATE_HZ * 2 // 10
"""100 ms of audio, typical of clients."""

_FORMAT_OF_SUFFIX = {
    ".mp3": "MP3_22050HZ_MONO_128KBPS",
    ".wav": "WAV_22050HZ_MONO_16BIT",
    ".pcm": "PCM_22050HZ_MONO_16BIT",
    ".opus": "OGG_OPUS_24KHZ_MONO_32KBPS",
}


@dataclass(frozen=True, slots=True)
class ReadRecording:
    """A recording in memory."""

    pcm: bytes
    """s16le mono 16 kHz."""
    source_rate_hz: int
    """Rate of the sound as it was recorded."""


def read_recording(name: str) -> ReadRecording:
    """Read a recording of any supported format, or stdin (``-``), mixed to mono.

    Takes about 1 s for 10 minutes of audio. Raises CommandError for an unreadable
    format, and OSError.
    """
    if name != "-":
        with Path(name).open("rb"):  # raises the usual OSError for a missing file
            return _decoded(name, Path(name))
    # Closed before it is read, because Windows cannot open a file twice.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return _decoded(name, path)


def _decoded(name: str, path: Path) -> ReadRecording:
    # In a thread, because some commands call this while their event loop runs.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(asyncio.run, _decode(path)).result()
        except RemoteProtocolError as error:
            raise CommandError(f"{name}: {error}") from error


async def _decode(path: Path) -> ReadRecording:
    server = open_decoding() if can_fork() else None
    try:
        pieces = [piece async for piece in decode_file(server, path)]
        comparison = ChannelComparison()
        for piece in pieces:
            comparison.push_audio(piece.channels)
        heard = [channel for _, channel in comparison.distinct_channels()]
        pcm = b"".join(mixed([piece.channels[channel] for channel in heard]) for piece in pieces)
        return ReadRecording(pcm, pieces[0].source_rate_hz if pieces else PCM_RATE_HZ)
    finally:
        if server is not None:
            await server.aclose()


async def in_pieces(pcm: bytes) -> AsyncIterator[bytes]:
    """Yield a recording in pieces of 100 ms."""
    for start in range(0, len(pcm), PIECE_BYTES):
        yield pcm[start : start + PIECE_BYTES]


def output_format(path: Path, wished: str | None) -> str:
    """Return the wire contract's name of a file's output format: ``wished``, or by the
    file's suffix.
    """
    try:
        return parse_output_format(wished or _FORMAT_OF_SUFFIX[path.suffix.lower()]).name
    except KeyError:
        known = ", ".join(_FORMAT_OF_SUFFIX)
        raise CommandError(
            f"{path}: the suffix is none of {known}; give one, or --format", EXIT_USAGE
        ) from None
    except RemoteProtocolError as error:
        raise CommandError(f"--format: {error}", EXIT_USAGE) from error


class SpeechFile:
    """Encodes synthesised speech into a file's content."""

    def __init__(self, format_name: str) -> None:
        self._format = parse_output_format(format_name)
        self._encoder = open_encoder(self._format)
        self._pieces: list[bytes] = []

    def add_audio(self, pcm: bytes, rate_hz: int) -> None:
        """Append s16le mono speech."""
        self._pieces += self._encoder.encode(pcm, rate_hz)

    def content(self) -> bytes:
        """Finish the encoding and return the whole file."""
        self._pieces += self._encoder.finish_stream()
        return with_wav_sizes(b"".join(self._pieces))


def with_wav_sizes(stream: bytes) -> bytes:
    """Write the actual sizes into the header of a WAV stream, which was written before
    they were known.

    Returns any other stream unchanged.
    """
    if stream[:4] != b"RIFF":
        return stream
    rate_hz = int.from_bytes(stream[24:28], "little")
    header_bytes = len(wav_header(rate_hz, None))
    samples = stream[header_bytes:]
    return wav_header(rate_hz, len(samples)) + samples
