"""The client of the fork server that decodes compressed audio; the server is
`voicechat.runtime.decoding_child`.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from voicechat.audio.decode import DECODED_RATE_HZ, open_decoder
from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.audio.signatures import SIGNATURE_BYTES, known_container
from voicechat.errors import Fault, RemoteProtocolError
from voicechat.processes import python
from voicechat.processes.errors import WorkerError, WorkerLostError
from voicechat.processes.forked import ForkedStream, ForkServer
from voicechat.processes.frames import Frame, FrameKind
from voicechat.runtime.packet_decoding import PacketDecoding

SAMPLES_BYTES = 64 * 1024
"""How much PCM is decoded at once on the event loop, in less than 1 ms."""
RATE_BYTES = 4
"""Size of the sample rate at the start of each answer of a decoding process."""


@dataclass(frozen=True, slots=True)
class DecodedPiece:
    """A few seconds of a recording."""

    channels: tuple[bytes, ...]
    """s16le at 16 kHz, one per channel, all of the same length."""
    source_rate_hz: int
    """Sample rate of the recording, in Hz."""


class DecoderLostError(RemoteProtocolError):
    """The decoding process did not start, died, or did not answer in time. A retry in
    another process may succeed.
    """


class _JobRaisedError(WorkerLostError):
    """The process raised an exception of its own. Retrying with the same file would
    fail again.
    """


class DecodingProcesses(ForkServer):
    """The processes that decode: one for each stream or file, and one for the single
    Opus packets of all sessions.
    """

    def __init__(self) -> None:
        super().__init__(python.command("voicechat.runtime.decoding_child"))
        self.packets = PacketDecoding(lambda: self.fork(b"packets"))

    async def aclose(self) -> None:
        """Stop all of them. Idempotent."""
        await self.packets.aclose()
        await super().aclose()


def open_decoding() -> DecodingProcesses:
    """Open the fork server. No process runs before it is started or used. Check
    `can_fork` first.
    """
    return DecodingProcesses()


async def decode_stream(server: ForkServer, container: InputContainer) -> ForkedStream:
    """Start a process for one client's audio. Raises `WorkerError`."""
    return await server.fork(f"stream {container.value}".encode())


async def decode_file(
    server: ForkServer | None, path: Path, bare: InputFormat | None = None
) -> AsyncGenerator[DecodedPiece, None]:
    """Decode a recording of any known format, a few seconds at a time.

    Without ``server`` only PCM is decoded (WAV, and the format that ``bare`` declares),
    with the channels mixed. Other formats raise ``UNSUPPORTED_FORMAT``.

    ``bare`` is the format of a file without a header. Only one piece is in memory at a
    time. Raises ``RemoteProtocolError`` for a file that cannot be used
    (``UNDECODABLE_AUDIO``, ``UNSUPPORTED_FORMAT``, ``TOO_LARGE``, or ``NOT_FOUND`` if
    it cannot be read), and ``DecoderLostError`` if the process is at fault:
    ``AT_CAPACITY`` if none could be started, ``UNDECODABLE_AUDIO`` if it died, perhaps
    because of the file. Closing the generator ends the process.
    """
    if server is None:
        async for piece in _samples_of(path, bare):
            yield piece
        return
    try:
        stream = await server.fork(_file_job(path, bare))
    except WorkerError as error:
        raise DecoderLostError(
            Fault.AT_CAPACITY, "recordings cannot be decoded now; try again"
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
        raise RemoteProtocolError(Fault.UNDECODABLE_AUDIO, "file: its decoder failed") from error
    except WorkerError as error:
        raise DecoderLostError(Fault.UNDECODABLE_AUDIO, "file: its decoder failed") from error
    finally:
        stream.close()


async def _samples_of(path: Path, bare: InputFormat | None) -> AsyncGenerator[DecodedPiece, None]:
    """Decode a PCM file in this process."""
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
                    Fault.UNSUPPORTED_FORMAT,
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
            Fault.NOT_FOUND, f"file: it cannot be read: {error.strerror}"
        ) from error


def _file_job(path: Path, bare: InputFormat | None) -> bytes:
    declared = "" if bare is None else f"{bare.container.value}@{bare.rate_hz}"
    return f"file {declared} {path.absolute()}".encode()


def split_rate(payload: bytes) -> tuple[int, memoryview]:
    """Split an answer of a decoding process into the sample rate in Hz (0 if unknown)
    and the payload.
    """
    return int.from_bytes(payload[:RATE_BYTES], "little"), memoryview(payload)[RATE_BYTES:]


def check(answer: Frame) -> None:
    """Raise the ``RemoteProtocolError`` that the process refused with, or
    `WorkerLostError` if it gave no reason.
    """
    if answer.kind is not FrameKind.FAILED:
        return
    if not answer.payload:
        raise _JobRaisedError("the process of the job failed")
    fault, _, message = answer.payload.decode().partition(" ")
    raise RemoteProtocolError(Fault[fault], message)
