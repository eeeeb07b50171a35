"""The processes that decode compressed audio; this module is their fork server.

A job's options name its input: ``stream <format>``, whose payloads are the client's
bytes, or ``file <format>@<rate> <path>``, whose payloads only request more output.
Format and rate describe a file without a header, and may be missing. ``packets``
decodes single Opus packets of many clients; `voicechat.runtime.packet_records`
describes its payloads. Every answer of the other jobs begins with the sample rate of
the recording, in four bytes, little-endian, 0 while it is unknown. For a stream, s16le
mono 16 kHz follows; for a file, one byte with the number of channels and then one
channel after the other.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from voicechat.audio.compressed import CompressedDecoder
from voicechat.audio.files import FileDecoder
from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.audio.wav import wav_header
from voicechat.errors import Fault, RemoteProtocolError
from voicechat.processes.fork_server import ForkedJob, JobLimits, JobRefusalError, serve
from voicechat.runtime.decoding import RATE_BYTES
from voicechat.runtime.packet_records import (
    Request,
    RequestKind,
    read_requests,
    write_answer,
    write_failure,
)


class StreamJob:
    """Decodes the audio stream of one client."""

    def __init__(self, container: InputContainer) -> None:
        self._decoder = CompressedDecoder(container)

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Decode the next bytes."""
        return self._answers(self._decoder.decode(payload))

    def finish_input(self) -> Iterator[bytes]:
        """Return the output that the decoder holds back."""
        return self._answers(self._decoder.finish_turn())

    def _answers(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for pcm in _refusing(pieces):
            yield _with_rate(self._decoder.source_rate_hz, pcm)


class PacketsJob:
    """Decodes single Opus packets of many streams. A stream whose packets cannot be
    decoded gets an error; the others continue.
    """

    def __init__(self) -> None:
        self._decoders: dict[int, CompressedDecoder] = {}

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Carry out the records of a batch, and answer all of them together."""
        yield b"".join(map(self._answer, read_requests(payload)))

    def finish_input(self) -> Iterator[bytes]:
        """Nothing is held back."""
        return iter(())

    def _answer(self, request: Request) -> bytes:
        number = request.stream
        if request.kind is RequestKind.CLOSE:
            self._decoders.pop(number, None)
            return b""
        decoder = self._decoders.get(number)
        if decoder is None:
            decoder = self._decoders[number] = CompressedDecoder(InputContainer.OPUS_RAW)
        try:
            pieces = (
                decoder.finish_turn()
                if request.kind is RequestKind.FINISH
                else decoder.decode(request.packet)
            )
            return write_answer(number, b"".join(pieces))
        except RemoteProtocolError as error:
            del self._decoders[number]  # it must not be used after an error
            return write_failure(number, error)


class FileJob:
    """Decodes one uploaded file. The container is opened by the first request, within
    the limits of that request.
    """

    def __init__(self, path: Path, bare: InputFormat | None) -> None:
        """``bare`` is the format of a file without a header."""
        self._file = path.open("rb")
        self._bare = bare
        self._decoder: FileDecoder | None = None

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Decode the next few seconds. Returns nothing at the end."""
        return _refusing(self._read())

    def finish_input(self) -> Iterator[bytes]:
        """Close the file."""
        if self._decoder is not None:
            self._decoder.close()
        self._file.close()
        return iter(())

    def _read(self) -> Iterator[bytes]:
        if self._decoder is None:
            self._decoder = FileDecoder(self._file, self._bare)
        channels = self._decoder.read_channels()
        if channels:
            yield _with_rate(self._decoder.source_rate_hz, bytes([len(channels)]), *channels)


def _with_rate(rate_hz: int | None, *parts: bytes) -> bytes:
    return b"".join(((rate_hz or 0).to_bytes(RATE_BYTES, "little"), *parts))


def open_job(options: bytes) -> ForkedJob:
    """Create the job that the options name. Raises ``JobRefusalError`` for a file that
    cannot be read.
    """
    kind, _, what = options.decode().partition(" ")
    if kind == "packets":
        return PacketsJob()
    if kind != "file":
        return StreamJob(InputContainer(what))
    declared, _, path = what.partition(" ")
    name, _, rate_hz = declared.partition("@")
    bare = InputFormat(InputContainer(name), int(rate_hz)) if declared else None
    try:
        return FileJob(Path(path), bare)
    except OSError as error:
        reason = f"file: it cannot be read: {error.strerror}"
        raise JobRefusalError(f"{Fault.NOT_FOUND.name} {reason}") from error


def _refusing(pieces: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except RemoteProtocolError as error:
        raise JobRefusalError(f"{error.fault.name} {error.message}") from error
    except OSError as error:
        raise JobRefusalError(
            f"{Fault.NOT_FOUND.name} file: it cannot be read: {error.strerror}"
        ) from error


def main() -> None:
    """Serve until the parent closes the connection."""
    # Load everything before the first fork. Forked processes share these pages, and a
    # job cannot load a library itself: its sandbox opens no file.
    for container in InputContainer:
        if container.compressed:
            StreamJob(container)
    FileDecoder(io.BytesIO(wav_header(8000, None) + bytes(8000))).read_channels()
    serve(open_job, JobLimits())


if __name__ == "__main__":
    main()
