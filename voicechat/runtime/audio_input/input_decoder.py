"""Decodes a session's incoming audio: samples in place, compressed audio in a process
of its own.

Either way frames are decoded in order, and each goes to the destination of the route at
the time of its arrival.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from voicechat.audio.decode import Decoder
from voicechat.audio.formats import InputContainer
from voicechat.errors import Fault, RemoteProtocolError
from voicechat.processes.errors import WorkerError
from voicechat.processes.forked import ForkedStream, ForkServer
from voicechat.processes.frames import Frame, FrameKind
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS
from voicechat.runtime.decoding import check, decode_stream, split_rate
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import Route

PIECE_BYTES = 4 * 1024
"""Bytes sent to a decoding process at once. Its CPU time is limited for each such
piece.
"""
WINDOW_BYTES = 256 * 1024
"""Bound of the compressed audio waiting to be decoded. Beyond it the socket is not
read.
"""
MAX_AHEAD_MS = 900_000
"""How far compressed audio may run ahead of real time: a whole turn may be sent at
once.
"""
SPARE_AHEAD_MS = 30_000
SPARSEST_BYTES_PER_S = 300
"""Audio that runs ahead by more than ``SPARE_AHEAD_MS`` must have at least this many
bytes per second, as speech has in any codec (Speex at 2.15 kbit/s has 270). Silence may
take almost none, but clients do not send silence faster than real time.
"""


@dataclass(frozen=True, slots=True)
class Destination:
    """The route of audio at the time of its arrival."""

    route: Route
    stream: int = 0
    """The number of the recogniser stream, if the route is ``RECOGNISE``."""


class Sink(Protocol):
    """Receives the decoded audio, in order."""

    def decoded(self, pcm: bytes, destination: Destination) -> None:
        """Receive decoded audio, s16le mono 16 kHz."""

    def ended(self, destination: Destination) -> None:
        """Note that all audio before ``finish`` has been passed to ``decoded``."""

    def undecodable(self, error: RemoteProtocolError, destination: Destination) -> None:
        """Note that audio cannot be decoded. Its rest is dropped or decoded anew."""

    def drained(self) -> None:
        """Note that no audio waits to be decoded."""

    def settle_room(self) -> None:
        """Note that ``has_room`` has changed."""


class InputDecoder(Protocol):
    """Decodes one session's audio from the client's format."""

    def feed(self, payload: bytes, destination: Destination) -> None:
        """Decode the client's next frame. Never waits."""

    def finish(self, destination: Destination, *, ends: bool = True) -> None:
        """Flush the output that is held back. If it ``ends``, call ``Sink.ended`` after
        it.
        """

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be decoded."""

    @property
    def has_room(self) -> bool:
        """Whether the audio waiting to be decoded is below its bound. Each change calls
        ``Sink.settle_room``.
        """

    @property
    def source_rate_hz(self) -> int | None:
        """The sample rate of the recording as stated in the audio, in Hz; None if not
        known, or not yet.
        """

    @property
    def bytes_per_ms(self) -> float:
        """Bytes of the client's format per millisecond if frames may be joined before
        they are fed, because they are bare samples. Otherwise 0.
        """

    def close(self) -> None:
        """Stop decoding."""


class InPlaceDecoder:
    """Decodes samples at once, on the event loop. This takes microseconds."""

    idle = True
    """See ``InputDecoder.idle``."""
    has_room = True
    """See ``InputDecoder.has_room``."""

    def __init__(self, decoder: Decoder, sink: Sink) -> None:
        self._decoder = decoder
        self._sink = sink

    def feed(self, payload: bytes, destination: Destination) -> None:
        """See ``InputDecoder.feed``."""
        try:
            pcm = self._decoder.decode(payload)
        except RemoteProtocolError as error:
            self._sink.undecodable(error, destination)
        else:
            self._sink.decoded(pcm, destination)

    def finish(self, destination: Destination, *, ends: bool = True) -> None:
        """See ``InputDecoder.finish``."""
        self._sink.decoded(self._decoder.finish_turn(), destination)
        if ends:
            self._sink.ended(destination)

    @property
    def source_rate_hz(self) -> int | None:
        """See ``InputDecoder.source_rate_hz``."""
        return self._decoder.source_rate_hz

    @property
    def bytes_per_ms(self) -> float:
        """See ``InputDecoder.bytes_per_ms``."""
        return self._decoder.bytes_per_ms

    def close(self) -> None:
        """See ``InputDecoder.close``."""


class RefusingDecoder:
    """Refuses all audio, because there are no processes for compressed audio."""

    idle = True
    """See ``InputDecoder.idle``."""
    has_room = True
    """See ``InputDecoder.has_room``."""
    source_rate_hz = None
    """See ``InputDecoder.source_rate_hz``."""
    bytes_per_ms = 0.0
    """See ``InputDecoder.bytes_per_ms``."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._error = RemoteProtocolError(
            Fault.UNSUPPORTED_FORMAT, f"{name}: this server decodes no compressed audio"
        )
        self._sink = sink

    def feed(self, payload: bytes, destination: Destination) -> None:
        """See ``InputDecoder.feed``."""
        self._sink.undecodable(self._error, destination)

    def finish(self, destination: Destination, *, ends: bool = True) -> None:
        """See ``InputDecoder.finish``."""
        if ends:
            self._sink.ended(destination)

    def close(self) -> None:
        """See ``InputDecoder.close``."""


class PaceLimit:
    """Refuses compressed audio that runs too far ahead of real time; see
    ``MAX_AHEAD_MS``.
    """

    def __init__(self, container: InputContainer, loop: asyncio.AbstractEventLoop) -> None:
        self._name = container.value
        self._loop = loop
        self._began_s = loop.time()
        self._decoded_bytes = 0
        self.taken_bytes = 0
        """Compressed bytes that were fully processed."""

    def check(self, decoded_bytes: int, packed_bytes: int, *, worked_off: bool = True) -> None:
        """Note that ``packed_bytes`` were decoded to ``decoded_bytes``. They are added
        to ``taken_bytes`` if they are ``worked_off``; otherwise they may yield more
        output.

        Raises ``RemoteProtocolError`` (TOO_LARGE).
        """
        self._decoded_bytes += decoded_bytes
        taken_bytes = self.taken_bytes + packed_bytes
        if worked_off:
            self.taken_bytes = taken_bytes
        real_ms = (self._loop.time() - self._began_s) * 1000
        ahead_ms = self._decoded_bytes / BYTES_PER_MS - real_ms
        if ahead_ms > min(MAX_AHEAD_MS, SPARE_AHEAD_MS + taken_bytes * 1000 / SPARSEST_BYTES_PER_S):
            raise RemoteProtocolError(
                Fault.TOO_LARGE,
                f"{self._name}: {taken_bytes} bytes run {ahead_ms / 1000:.0f} s ahead of real time",
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A request to the process. An empty ``payload`` requests the output that is held
    back.
    """

    payload: bytes
    destination: Destination
    ends: bool = False
    """Whether to call ``Sink.ended`` for the destination after this step."""


class ProcessDecoder:
    """Decodes in a forked process. If the process dies, the audio that it was decoding
    fails, and another process decodes the rest.
    """

    bytes_per_ms = 0.0
    """See ``InputDecoder.bytes_per_ms``."""

    def __init__(
        self,
        server: ForkServer,
        container: InputContainer,
        sink: Sink,
        *,
        tasks: SessionTasks,
        ready: Callable[[], Awaitable[object]],
    ) -> None:
        """``tasks`` owns the decoder's task; ``ready`` is awaited before each answer of
        the process is read.
        """
        self._server = server
        self._container = container
        self._sink = sink
        self._ready = ready
        self._steps: deque[_Step] = deque()
        self._waiting_bytes = 0
        self._stream: ForkedStream | None = None
        self._wanted = asyncio.Event()
        self.has_room = True
        """See ``InputDecoder.has_room``."""
        self._pace = PaceLimit(container, asyncio.get_running_loop())
        self.source_rate_hz: int | None = None
        """See ``InputDecoder.source_rate_hz``."""
        self._task = tasks.spawn(self._run(), "decoding")

    def feed(self, payload: bytes, destination: Destination) -> None:
        """See ``InputDecoder.feed``."""
        # A single packet must stay whole; other audio may be cut anywhere.
        piece_bytes = (
            max(len(payload), 1) if self._container is InputContainer.OPUS_RAW else PIECE_BYTES
        )
        for start in range(0, len(payload), piece_bytes):
            self._add(_Step(payload[start : start + piece_bytes], destination))

    def finish(self, destination: Destination, *, ends: bool = True) -> None:
        """See ``InputDecoder.finish``."""
        self._add(_Step(b"", destination, ends))

    @property
    def idle(self) -> bool:
        """See ``InputDecoder.idle``."""
        return not self._steps

    def close(self) -> None:
        """See ``InputDecoder.close``."""
        self._task.cancel()

    def _add(self, step: _Step) -> None:
        self._steps.append(step)
        self._count(len(step.payload))
        self._wanted.set()
        if self._stream is not None:
            self._send(self._stream, step)

    def _count(self, change_bytes: int) -> None:
        self._waiting_bytes += change_bytes
        has_room = self._waiting_bytes < WINDOW_BYTES
        if has_room is not self.has_room:
            self.has_room = has_room
            self._sink.settle_room()

    @staticmethod
    def _send(stream: ForkedStream, step: _Step) -> None:
        if step.payload:
            stream.send(step.payload)
        else:
            stream.finish_input()

    async def _run(self) -> None:
        """Process the steps in order until cancelled at the end of the session."""
        try:
            while True:
                try:
                    await self._work()
                except RemoteProtocolError as error:
                    self._give_up(error)
                except WorkerError:
                    self._give_up(self._lost())
        finally:
            self._close()

    async def _work(self) -> None:
        """Work with one process until it is lost, which raises. Waits while there are
        no steps.
        """
        await self._steps_to_do()
        self._stream = await decode_stream(self._server, self._container)
        for step in self._steps:
            self._send(self._stream, step)
        while True:
            await self._steps_to_do()
            await self._ready()
            self._receive(await self._stream.receive_frame())

    async def _steps_to_do(self) -> None:
        while not self._steps:
            self._wanted.clear()
            await self._wanted.wait()

    def _receive(self, frame: Frame) -> None:
        step = self._steps[0]
        match frame.kind:
            case FrameKind.MESSAGE:
                rate_hz, pcm = split_rate(frame.payload)
                self.source_rate_hz = rate_hz or None
                self._pace.check(len(pcm), len(step.payload), worked_off=False)
                self._sink.decoded(bytes(pcm), step.destination)
            case FrameKind.CONSUMED | FrameKind.ENDED:
                self._steps.popleft()
                self._pace.taken_bytes += len(step.payload)
                self._count(-len(step.payload))
                if step.ends:
                    self._sink.ended(step.destination)
                if not self._steps:
                    self._sink.drained()
            case _:
                check(frame)

    def _lost(self) -> RemoteProtocolError:
        name = self._container.value
        if self._stream is None:
            return RemoteProtocolError(Fault.INTERNAL, f"{name}: it cannot be decoded now")
        return RemoteProtocolError(Fault.UNDECODABLE_AUDIO, f"{name}: its decoder failed")

    def _give_up(self, error: RemoteProtocolError) -> None:
        """Report the error to the current step's destination, drop all other steps for
        that destination, and keep the rest for a new process.
        """
        self._close()
        if not self._steps:
            return
        destination = self._steps[0].destination
        kept = [step for step in self._steps if step.destination != destination]
        self._steps.clear()
        self._steps.extend(kept)
        self._waiting_bytes = 0
        self._count(sum(len(step.payload) for step in kept))
        self._sink.undecodable(error, destination)
        if not self._steps:
            self._sink.drained()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
