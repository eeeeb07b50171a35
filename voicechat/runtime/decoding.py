"""The fork server that decodes, and what its processes answer; see
`voicechat.runtime.decoding_child`.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from voicechat.audio.decode import DECODED_RATE_HZ, open_decoder
from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.audio.signatures import SIGNATURE_BYTES, known_container
from voicechat.errors import RemoteProtocolError, Status
from voicechat.processes import python
from voicechat.processes.errors import WorkerError, WorkerLostError
from voicechat.processes.forked import ForkedStream, ForkServer
from voicechat.processes.frames import Frame, FrameKind

SAMPLES_BYTES = 64 * 1024
"""Samples that are decoded at once, on the event loop: less than a millisecond."""
RATE_BYTES = 4
"""Of the sample rate that every answer of a decoding process begins with."""


@dataclass(frozen=True, slots=True)
class DecodedPiece:
    """A few seconds of a recording."""

    channels: tuple[bytes, ...]
    """s16le 16 kHz, of equal lengths."""
    source_rate_hz: int
    """Rate of the sound as it was recorded."""


class DecoderLostError(RemoteProtocolError):
    """The process that decodes could not be begun, died, or said nothing in time:
    another one may do better.
    """


class _JobRaisedError(WorkerLostError):
    """The process ended by an exception of its own: the same file ends the next one
    too.
    """


def open_decoding() -> ForkServer:
    """Make the server; nothing runs before it is started or used. Ask `can_fork`
    before.
    """
    return ForkServer(python.command("voicechat.runtime.decoding_child"))


async def decode_stream(server: ForkServer, container: InputContainer) -> ForkedStream:
    """Start a process for one client's audio. Raises `WorkerError`."""
    return await server.fork(f"stream {container.value}".encode())


async def decode_file(
    server: ForkServer | None, path: Path, bare: InputFormat | None = None
) -> AsyncGenerator[DecodedPiece, None]:
    """Decode a recording of any known format, a few seconds at a time.

    Without ``server`` only samples are decoded, WAV and what ``bare`` declares, and
    their channels are mixed; anything else is ``UNSUPPORTED_FORMAT``.

    ``bare`` says how to read it if it has no header. Only a piece is kept in memory at
    a time. Raises ``RemoteProtocolError`` for a file that cannot be used
    (``UNDECODABLE_AUDIO``, ``UNSUPPORTED_FORMAT``, ``TOO_LARGE``; ``NOT_FOUND`` when it
    cannot be read), ``DecoderLostError`` when that cannot be told: ``AT_CAPACITY``
    without a process, ``UNDECODABLE_AUDIO`` when the file may have been its death.
    Closing the generator ends the process.
    """
    if server is None:
        async for piece in _samples_of(path, bare):
            yield piece
        return
    try:
        stream = await server.fork(_file_job(path, bare))
    except WorkerError as error:
        raise DecoderLostError(
            Status.AT_CAPACITY, "recordings cannot be decoded now; try again"
        ) from error
    try:
        while True:
            stream.send(b"more")
            answer = await stream.receive_frame()
            check(answer)
            if answer.kind is FrameKind.CONSUMED:
                return
            rate_hz, payload = split_rate(answer.payload)
            count, planes = payload[0], payload[1:]
            size_bytes = len(planes) // count
            channels = [
                bytes(planes[at : at + size_bytes]) for at in range(0, len(planes), size_bytes)
            ]
            yield DecodedPiece(tuple(channels), rate_hz)
            check(await stream.receive_frame())
    except _JobRaisedError as error:
        raise RemoteProtocolError(Status.UNDECODABLE_AUDIO, "file: its decoder failed") from error
    except WorkerError as error:
        raise DecoderLostError(Status.UNDECODABLE_AUDIO, "file: its decoder failed") from error
    finally:
        stream.close()


async def _samples_of(path: Path, bare: InputFormat | None) -> AsyncGenerator[DecodedPiece, None]:
    """Decode a file of samples in this process."""
    try:
        with await asyncio.to_thread(path.open, "rb") as file:
            data = await asyncio.to_thread(file.read, SIGNATURE_BYTES)
            declared = (
                InputFormat(InputContainer.WAV, DECODED_RATE_HZ)
                if known_container(data) == "wav"
                else bare
            )
            if declared is None or declared.container.compressed:
                raise RemoteProtocolError(
                    Status.UNSUPPORTED_FORMAT,
                    "file: this server reads WAV only; convert the recording to it",
                )
            decoder = open_decoder(declared)
            while data:
                if pcm := decoder.decode(data):
                    yield DecodedPiece((pcm,), decoder.source_rate_hz)
                data = await asyncio.to_thread(file.read, SAMPLES_BYTES)
            if pcm := decoder.finish_turn():
                yield DecodedPiece((pcm,), decoder.source_rate_hz)
    except OSError as error:
        raise RemoteProtocolError(
            Status.NOT_FOUND, f"file: it cannot be read: {error.strerror}"
        ) from error


def _file_job(path: Path, bare: InputFormat | None) -> bytes:
    declared = "" if bare is None else f"{bare.container.value}@{bare.rate_hz}"
    return f"file {declared} {path.absolute()}".encode()


def split_rate(payload: bytes) -> tuple[int, memoryview]:
    """Take an answer of a decoding process apart: into the rate of the sound, 0 where
    it is not known, and the rest.
    """
    return int.from_bytes(payload[:RATE_BYTES], "little"), memoryview(payload)[RATE_BYTES:]


def check(answer: Frame) -> None:
    """Raise what the process refused with, as the ``RemoteProtocolError`` that it was;
    `WorkerLostError` without.
    """
    if answer.kind is not FrameKind.FAILED:
        return
    if not answer.payload:
        raise _JobRaisedError("the process of the job failed")
    status, _, message = answer.payload.decode().partition(" ")
    raise RemoteProtocolError(Status(int(status)), message)
