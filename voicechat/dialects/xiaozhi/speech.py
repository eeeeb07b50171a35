"""When a device begins and stops speaking, and when it gets which packet.

The firmware plays packets only between ``tts start`` and ``tts stop``. It empties its
queue some time after ``tts start``, silently drops packets that do not fit into its
queue of 40, and does not report what it has played. So the session sends in real time,
with ``lead_ms`` of audio ahead, and this module computes when the last packet has been
played.

Source: xiaozhi-esp32, ``main/application.cc`` and ``main/audio/audio_service.cc``.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from voicechat.dialects.base import Tell
from voicechat.dialects.xiaozhi.codec import FrameCodec, MessageWriter

TRANSIT_MS = 300
"""How much later than others a message may arrive: the network's jitter, mostly
Wi-Fi's.
"""
PACKETS_AHEAD = 3
"""Packets that are sent ahead of playback besides ``TRANSIT_MS``: the one that is being
played, the one that is being filled and the one that is sent next.
"""
START_GAP_MS = 50
"""From ``tts start`` to the first packet: the firmware's main loop must have handled
the message, because it empties the queue then. Most replies take longer to produce.
"""
GATHERING_MS = 40
"""A sentence that begins when nothing is left to play is delayed by this much, unless
more than ``TRANSIT_MS`` of it arrive earlier: a synthesiser returns its first piece as
soon as it can, and the device would play that piece and then wait for the next.
"""
OUTPUT_MS = 60
"""The delay of a device's sound output: its DMA buffers."""


def lead_ms(packet_ms: int) -> int:
    """How far ahead of playback packets are sent: 480 ms with packets of 60 ms.

    It is not more, because the user still hears these packets after an interruption.
    """
    return TRANSIT_MS + PACKETS_AHEAD * packet_ms


class DeviceSpeech:
    """What was sent to a device for its speech. Times are the connection's
    milliseconds.
    """

    def __init__(self, codec: FrameCodec, writer: MessageWriter, packet_ms: int) -> None:
        self._codec = codec
        self._writer = writer
        self._packet_ms = packet_ms
        self.speaking = False
        """Whether ``tts start`` was sent, and no ``tts stop`` since."""
        self._opens_ms = 0
        """No packet is sent before this time."""
        self._gathers_until_ms = 0
        """Nor before this time, while at most ``TRANSIT_MS`` of audio wait."""
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Packets that may not be sent yet, with their time stamps."""
        self._played_ms = 0
        """When the packets sent so far will have been played."""
        self._audible = False
        """Whether packets have come since ``tts start``."""
        self._stop_ms: int | None = None
        """When ``tts stop`` is due; None: not all packets have come."""
        self._stamp_ms = 0
        """Time stamp of the newest packet: the length of all audio so far."""

    @property
    def stamp_ms(self) -> int:
        """Milliseconds of audio that the connection has been given, including packets
        that wait.
        """
        return self._stamp_ms

    def start(self, now_ms: int) -> Iterator[Tell]:
        """Begin a reply. If the previous one is still being played, it is played to its
        end.
        """
        self._stop_ms = None
        if not self.speaking:
            self.speaking, self._audible = True, False
            self._played_ms = now_ms  # the device empties its queue then
            self._opens_ms = now_ms + START_GAP_MS
            yield Tell(self._writer.tts("start"))

    def sentence(self, text: str, now_ms: int) -> Iterator[Tell]:
        """Begin a sentence: its audio follows."""
        if self.speaking and not self._waiting and now_ms >= self._played_ms:
            self._gathers_until_ms = now_ms + GATHERING_MS
        if self.speaking and text:
            yield Tell(self._writer.tts("sentence_start", text))

    def play(self, packets: Iterable[bytes], now_ms: int) -> Iterator[Tell]:
        """Send packets of the reply, or keep them until they may be sent."""
        for packet in packets:
            self._stamp_ms += self._packet_ms
            self._audible = True
            self._waiting.append((packet, self._stamp_ms))
        if now_ms >= self._leaves_ms:
            yield from self._send_waiting(now_ms)

    @property
    def _leaves_ms(self) -> int:
        """When the packets that wait may be sent."""
        if len(self._waiting) * self._packet_ms > TRANSIT_MS:
            return self._opens_ms
        return max(self._opens_ms, self._gathers_until_ms)

    def finish(self, now_ms: int) -> None:
        """No packets follow: send ``tts stop`` when the last one has been played."""
        if not self.speaking or self._stop_ms is not None:
            return
        if not self._audible:
            self._stop_ms = now_ms
            return
        waiting_ms = len(self._waiting) * self._packet_ms
        begins_ms = max(self._played_ms, self._leaves_ms if waiting_ms else now_ms)
        self._stop_ms = begins_ms + waiting_ms + TRANSIT_MS + OUTPUT_MS

    def stop(self) -> Iterator[Tell]:
        """Stop speaking now. Packets that wait are dropped."""
        self._waiting.clear()
        self._stop_ms = None
        if self.speaking:
            self.speaking = False
            yield Tell(self._writer.tts("stop"))

    def deadline_ms(self) -> int | None:
        """When to call ``wake``; None: not at all."""
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
