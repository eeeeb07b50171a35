"""The decoder of a session whose audio may change its format at any time."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from voicechat.audio.decode import open_decoder
from voicechat.audio.formats import InputContainer, parse_input_format
from voicechat.processes.forked import ForkServer
from voicechat.runtime.audio_input.input_decoder import (
    WINDOW_BYTES,
    Destination,
    InPlaceDecoder,
    InputDecoder,
    ProcessDecoder,
    RefusingDecoder,
    Sink,
)
from voicechat.runtime.audio_input.packet_decoder import PacketDecoder
from voicechat.runtime.decoding import DecodingProcesses
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import Route
from voicechat.session.types import InputSettings


@dataclass(frozen=True, slots=True)
class _Held:
    """A frame that waits for a decoder of its format. A ``frame`` of None is the end of
    a stream.
    """

    settings: InputSettings
    frame: bytes | None
    destination: Destination


class DecoderSwitch:
    """Passes frames in order to a decoder for their format.

    When the format changes while the decoder is still busy, later frames are held back,
    within the bound of ``has_room``, until the decoder has finished and another one has
    replaced it.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        tasks: SessionTasks,
        decoding: ForkServer | None,
        ready: Callable[[], Awaitable[object]],
    ) -> None:
        """``decoding`` runs the processes for compressed audio. If it is None,
        compressed audio is refused.

        ``ready`` is awaited before each answer of a process is read; ``tasks`` owns the
        tasks that read.
        """
        self._sink = sink
        self._tasks = tasks
        self._processes = decoding
        self._ready = ready
        self._declared = InputSettings()
        """The format of the next frame that arrives."""
        self._decoder: InputDecoder = RefusingDecoder("", sink)
        self._decodes: InputSettings | None = None
        """The settings of ``_decoder``; None before the first ``configure``."""
        self._retiring = False
        self._held: list[_Held] = []
        """Frames that arrived while ``_retiring``."""
        self._held_bytes = 0
        self.feed: Callable[[bytes, Destination], None] = self._drop
        """Decode the client's next frame. Never waits. An attribute, because most
        frames go straight to a decoder.
        """

    @property
    def has_room(self) -> bool:
        """Whether the audio waiting to be decoded is below its bound. Each change calls
        ``Sink.settle_room``.
        """
        return self._decoder.has_room and self._held_bytes < WINDOW_BYTES

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be decoded."""
        return self._decoder.idle and not self._held

    @property
    def source_rate_hz(self) -> int | None:
        """See ``InputDecoder.source_rate_hz``."""
        return self._decoder.source_rate_hz

    @property
    def bytes_per_ms(self) -> float:
        """See ``InputDecoder.bytes_per_ms``."""
        return self._decoder.bytes_per_ms

    def configure(self, settings: InputSettings, last: Destination) -> None:
        """Decode later frames with ``settings``. Earlier frames keep their own
        settings.

        The output that the decoder still holds back goes to ``last``.
        """
        self._declared = settings
        self._fit(settings, last)

    def finish(self, destination: Destination) -> None:
        """Flush the decoder to ``destination``, then report the end there: immediately
        if no format has been set.
        """
        if self._retiring:
            self._hold(_Held(self._declared, None, destination))
        elif self._decodes is None:
            self._sink.ended(destination)
        else:
            self._decoder.finish(destination)

    def drained(self) -> None:
        """Replace the decoder if the format has changed: it has nothing left to do. See
        ``Sink.drained``.
        """
        if not self._retiring:
            return
        held, self._held, self._held_bytes = self._held, [], 0
        self._open(held[0].settings if held else self._declared)
        last = held[0].destination if held else Destination(Route.SKIP)
        for one in held:
            self._fit(one.settings, last)
            last = one.destination
            if self._retiring:
                self._hold(one)
            elif one.frame is None:
                self._decoder.finish(one.destination)
            else:
                self._decoder.feed(one.frame, one.destination)
        self._fit(self._declared, last)
        self._sink.settle_room()

    def release(self) -> None:
        """Close the decoder, and delete ``feed``, which may refer to this object. Do
        not feed anything afterwards.
        """
        self._decoder.close()
        del self.feed

    def _drop(self, frame: bytes, destination: Destination) -> None:
        """Drop audio that arrives before its format was set."""

    def _hold_frame(self, frame: bytes, destination: Destination) -> None:
        self._hold(_Held(self._declared, frame, destination))

    def _hold(self, one: _Held) -> None:
        self._held.append(one)
        self._held_bytes += len(one.frame or b"")
        self._sink.settle_room()

    def _fit(self, settings: InputSettings, last: Destination) -> None:
        """Open a decoder for ``settings``, or retire the current one if it is still
        busy.
        """
        if self._retiring:
            return
        decodes = self._decodes
        if decodes is not None:
            if (settings.format, settings.sample_rate_hz) == (
                decodes.format,
                decodes.sample_rate_hz,
            ):
                return
            self._decoder.finish(last, ends=False)
            if not self._decoder.idle:
                self._retiring = True
                self.feed = self._hold_frame
                return
        self._open(settings)

    def _open(self, settings: InputSettings) -> None:
        self._retiring = False
        self._decoder.close()
        self._decodes = settings
        audio_format = parse_input_format(settings.format, settings.sample_rate_hz)
        container = audio_format.container
        if not container.compressed:
            self._decoder = InPlaceDecoder(open_decoder(audio_format), self._sink)
        elif self._processes is None:
            self._decoder = RefusingDecoder(container.value, self._sink)
        elif container is InputContainer.OPUS_RAW and isinstance(
            self._processes, DecodingProcesses
        ):
            self._decoder = PacketDecoder(
                self._processes.packets, self._sink, instead=lambda: self._in_process(container)
            )
        else:
            self._decoder = self._in_process(container)
        self.feed = self._decoder.feed

    def _in_process(self, container: InputContainer) -> ProcessDecoder:
        """Open a decoder in a process of its own."""
        assert self._processes is not None, "there are processes"
        return ProcessDecoder(
            self._processes, container, self._sink, tasks=self._tasks, ready=self._ready
        )
