"""When a device is told to begin and to stop speaking, and when it gets which packet.

The firmware plays packets only between ``tts start`` and ``tts stop``. It empties its
queue some time after ``tts start``, it drops silently what its queue of 40 packets has
no room for, and it does not tell what it has played. So the session sends in real time,
with ``lead_ms`` of audio ahead, and this module knows by arithmetic when the last
packet has been played.

Source: xiaozhi-esp32, ``main/application.cc`` and ``main/audio/audio_service.cc``.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from voicechat.dialects.base import Tell
from voicechat.dialects.xiaozhi.codec import FrameCodec, MessageWriter

TRANSIT_MS = 300
"""Later than others a message may arrive by so much: the network, Wi-Fi most of all."""
PACKETS_AHEAD = 3
"""Besides ``TRANSIT_MS`` so many packets leave ahead of playback: the one that is being
played, the one that is being filled and the one that leaves next.
"""
START_GAP_MS = 50
"""From ``tts start`` to the first packet: the firmware's main loop must have handled
the message, for it empties the queue then. Most replies take longer to be made.
"""
GATHERING_MS = 40
"""A sentence before which nothing is left to play begins so much later, unless more
than ``TRANSIT_MS`` of it come before: a synthesiser gives its first piece as soon as it
can, and the device would play that and wait for the next.
"""
OUTPUT_MS = 60
"""How long a device's sound output lags behind: its DMA buffers."""


def lead_ms(packet_ms: int) -> int:
    """How far ahead of playback packets leave: 480 ms with packets of 60 ms.

    No more, because what is ahead is still heard after an interruption.
    """
    return TRANSIT_MS + PACKETS_AHEAD * packet_ms


class DeviceSpeech:
    """What a device was told of speech. Times are the connection's milliseconds."""

    def __init__(self, codec: FrameCodec, writer: MessageWriter, packet_ms: int) -> None:
        self._codec = codec
        self._writer = writer
        self._packet_ms = packet_ms
        self.speaking = False
        """``tts start`` was sent, and no ``tts stop`` since."""
        self._opens_ms = 0
        """Before it no packet leaves,"""
        self._gathers_until_ms = 0
        """nor before this, while no more have come than ``TRANSIT_MS``."""
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Packets that may not leave yet, with their time stamps."""
        self._played_ms = 0
        """When the packets sent so far will have been played."""
        self._audible = False
        """Packets have come since ``tts start``."""
        self._stop_ms: int | None = None
        """When ``tts stop`` is due; None: not all packets have come."""
        self._stamp_ms = 0
        """Time stamp of the packet sent last: how much audio has been sent at all."""

    @property
    def stamp_ms(self) -> int:
        """Milliseconds of audio that the connection has been given, those that wait
        included.
        """
        return self._stamp_ms

    def start(self, now_ms: int) -> Iterator[Tell]:
        """A reply begins. What is still heard of the one before is heard to its end."""
        self._stop_ms = None
        if not self.speaking:
            self.speaking, self._audible = True, False
            self._played_ms = now_ms  # the device empties its queue
            self._opens_ms = now_ms + START_GAP_MS
            yield Tell(self._writer.tts("start"))

    def sentence(self, text: str, now_ms: int) -> Iterator[Tell]:
        """The audio of a sentence follows."""
        if self.speaking and not self._waiting and now_ms >= self._played_ms:
            self._gathers_until_ms = now_ms + GATHERING_MS
        if self.speaking and text:
            yield Tell(self._writer.tts("sentence_start", text))

    def play(self, packets: Iterable[bytes], now_ms: int) -> Iterator[Tell]:
        """Packets of the reply may leave."""
        for packet in packets:
            self._stamp_ms += self._packet_ms
            self._audible = True
            self._waiting.append((packet, self._stamp_ms))
        if now_ms >= self._leaves_ms:
            yield from self._send_waiting(now_ms)

    @property
    def _leaves_ms(self) -> int:
        """When what waits may leave."""
        if len(self._waiting) * self._packet_ms > TRANSIT_MS:
            return self._opens_ms
        return max(self._opens_ms, self._gathers_until_ms)

    def finish(self, now_ms: int) -> None:
        """No packets follow: ``tts stop`` is due when the last one has been played."""
        if not self.speaking or self._stop_ms is not None:
            return
        if not self._audible:
            self._stop_ms = now_ms
            return
        waiting_ms = len(self._waiting) * self._packet_ms
        begins_ms = max(self._played_ms, self._leaves_ms if waiting_ms else now_ms)
        self._stop_ms = begins_ms + waiting_ms + TRANSIT_MS + OUTPUT_MS

    def stop(self) -> Iterator[Tell]:
        """Speech ends now, whatever has not been played."""
        self._waiting.clear()
        self._stop_ms = None
        if self.speaking:
            self.speaking = False
            yield Tell(self._writer.tts("stop"))

    def deadline_ms(self) -> int | None:
        """When ``wake`` is wanted."""
        return self._leaves_ms if self._waiting else self._stop_ms

    def wake(self, now_ms: int) -> Iterator[Tell]:
        """Send what is due."""
        if self._waiting and now_ms >= self._leaves_ms:
            yield from self._send_waiting(now_ms)
        if self._stop_ms is not None and now_ms >= self._stop_ms:
            yield from self.stop()

    def _send_waiting(self, now_ms: int) -> Iterator[Tell]:
        while self._waiting:
            yield self._sent(*self._waiting.popleft(), now_ms)

    def _sent(self, packet: bytes, stamp_ms: int, now_ms: int) -> Tell:
        self._played_ms = max(self._played_ms, now_ms) + self._packet_ms
        return Tell(self._codec.write(packet, stamp_ms))
