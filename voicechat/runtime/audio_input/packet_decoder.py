"""Decodes a session's single Opus packets. Packets of silence are recognised here; the
others are decoded in the process that all sessions share.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from voicechat.audio.formats import InputContainer
from voicechat.audio.opus_packets import is_silent, packet_us
from voicechat.errors import Fault, RemoteProtocolError
from voicechat.runtime.audio_input.input_decoder import (
    WINDOW_BYTES,
    Destination,
    InputDecoder,
    PaceLimit,
    Sink,
)
from voicechat.runtime.packet_decoding import PacketDecoding
from voicechat.runtime.packet_records import MAX_PACKET_BYTES, RequestKind

_STEP_BYTES = 64
"""Approximate memory of a waiting packet besides its payload."""


@dataclass(slots=True, eq=False)
class _PacketStep:
    """One packet, or the end of a stream, until its samples are passed on."""

    packet: bytes
    """Empty to request the output that is held back."""
    destination: Destination
    ends: bool = False
    """Whether to call ``Sink.ended`` for the destination after this step."""
    pcm: bytes | None = None
    """The samples; None until decoded."""
    given_up: bool = False
    """Whether its samples are to be discarded."""

    @property
    def size_bytes(self) -> int:
        """Approximate memory in bytes."""
        return len(self.packet) + _STEP_BYTES


class PacketDecoder:
    """Decodes in the shared process; see ``InputDecoder``.

    If that process dies with packets of this session, the session gets a decoder of its
    own (``instead``), so that packets that kill a process cannot harm other sessions
    again.
    """

    source_rate_hz = None
    """See ``InputDecoder.source_rate_hz``: an Opus packet does not say."""
    bytes_per_ms = 0.0
    """See ``InputDecoder.bytes_per_ms``."""

    def __init__(
        self, decoding: PacketDecoding, sink: Sink, *, instead: Callable[[], InputDecoder]
    ) -> None:
        """``instead`` opens a decoder in a process of its own."""
        self._decoding = decoding
        self._sink = sink
        self._open_instead: Callable[[], InputDecoder] | None = instead
        self._instead: InputDecoder | None = None
        self._steps: deque[_PacketStep] = deque()
        self._undecoded: deque[_PacketStep] = deque()
        """Steps that the process has yet to answer."""
        self._waiting_bytes = 0
        self._pace = PaceLimit(InputContainer.OPUS_RAW, asyncio.get_running_loop())
        self._stream = decoding.open(self)
        if self._stream is None:
            self._instead = instead()

    # --- the session ------------------------------------------------------------------

    def feed(self, payload: bytes, destination: Destination) -> None:
        """See ``InputDecoder.feed``."""
        if self._instead is not None:
            self._instead.feed(payload, destination)
        elif len(payload) > MAX_PACKET_BYTES:
            message = f"opus_raw: a packet of {len(payload)} bytes"
            self._sink.undecodable(
                RemoteProtocolError(Fault.UNDECODABLE_AUDIO, message), destination
            )
        elif payload:
            step = _PacketStep(payload, destination)
            if is_silent(payload):
                step.pcm = bytes(packet_us(payload) * 16 // 1000 * 2)
            self._add(step)

    def finish(self, destination: Destination, *, ends: bool = True) -> None:
        """See ``InputDecoder.finish``."""
        if self._instead is not None:
            self._instead.finish(destination, ends=ends)
        else:
            self._add(_PacketStep(b"", destination, ends))

    @property
    def idle(self) -> bool:
        """See ``InputDecoder.idle``."""
        return self._instead.idle if self._instead is not None else not self._steps

    @property
    def has_room(self) -> bool:
        """See ``InputDecoder.has_room``."""
        if self._instead is not None:
            return self._instead.has_room
        return self._waiting_bytes < WINDOW_BYTES

    def close(self) -> None:
        """See ``InputDecoder.close``."""
        if self._stream is not None:
            self._decoding.close(self._stream)
            self._stream = None
        if self._instead is not None:
            self._instead.close()
        self._open_instead = None  # it refers to the owner of this object
        self._steps.clear()
        self._undecoded.clear()

    # --- the process ------------------------------------------------------------------

    def answered(self, answer: bytes | RemoteProtocolError) -> None:
        """See ``PacketListener.answered``."""
        step = self._undecoded.popleft()
        if step.given_up:
            return
        if isinstance(answer, RemoteProtocolError):
            self._give_up(answer, step.destination)
        else:
            step.pcm = answer
        self._give()

    def lost(self) -> None:
        """See ``PacketListener.lost``."""
        assert self._open_instead is not None, "a closed stream is not told"
        self._stream = None
        self._instead = self._open_instead()
        if any(not step.given_up for step in self._undecoded):
            first = next(step for step in self._undecoded if not step.given_up)
            name = InputContainer.OPUS_RAW.value
            error = RemoteProtocolError(Fault.UNDECODABLE_AUDIO, f"{name}: its decoder failed")
            self._give_up(error, first.destination)
        steps, self._steps, self._waiting_bytes = self._steps, deque(), 0
        self._undecoded.clear()
        for step in steps:
            if step.packet:
                self._instead.feed(step.packet, step.destination)
            else:
                self._instead.finish(step.destination, ends=step.ends)
        if not steps:
            self._sink.drained()
        self._sink.settle_room()

    def _add(self, step: _PacketStep) -> None:
        assert self._stream is not None, "the stream is open"
        had_room = self.has_room
        self._steps.append(step)
        self._waiting_bytes += step.size_bytes
        if step.pcm is None:
            self._undecoded.append(step)
            kind = RequestKind.PACKET if step.packet else RequestKind.FINISH
            self._decoding.request(self._stream, kind, step.packet)
        else:
            self._give()
        if had_room is not self.has_room:
            self._sink.settle_room()

    def _give(self) -> None:
        """Pass on the decoded samples, in order."""
        had_room = self.has_room
        gave = False
        while self._steps and (pcm := self._steps[0].pcm) is not None:
            step = self._steps.popleft()
            gave = True
            self._waiting_bytes -= step.size_bytes
            try:
                self._pace.check(len(pcm), len(step.packet))
            except RemoteProtocolError as error:
                self._give_up(error, step.destination)
                continue
            self._sink.decoded(pcm, step.destination)
            if step.ends:
                self._sink.ended(step.destination)
        if gave and not self._steps:
            self._sink.drained()
        if had_room is not self.has_room:
            self._sink.settle_room()

    def _give_up(self, error: RemoteProtocolError, destination: Destination) -> None:
        """Drop all steps for ``destination``. Answers to them may still arrive."""
        kept: deque[_PacketStep] = deque()
        for step in self._steps:
            if step.destination == destination:
                step.given_up = True
                self._waiting_bytes -= step.size_bytes
            else:
                kept.append(step)
        self._steps = kept
        self._sink.undecodable(error, destination)
