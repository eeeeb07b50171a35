"""A model of the player in the xiaozhi firmware, for tests of what a device is sent.

It is told what arrives and when, and plays as the firmware does: packets count only
between ``tts start`` and ``tts stop``, ``tts start`` empties the queue a little later,
a queue of 40 packets drops silently what it has no room for. It remembers what a
listener would have heard of that.

Source: xiaozhi-esp32, ``main/application.cc`` and ``main/audio/audio_service.cc``.
"""

import json
from dataclasses import dataclass, field

from voicechat.dialects.base import Frame

QUEUE_PACKETS = 40
"""``MAX_DECODE_PACKETS_IN_QUEUE``."""
START_MS = 40
"""After ``tts start`` the firmware's main loop takes so long to begin: it draws, too.
"""


@dataclass(slots=True)
class DevicePlayer:
    """One device's player. All times are milliseconds of the device's clock."""

    packet_ms: int = 60
    start_ms: int = START_MS
    """From ``tts start`` to when packets count."""
    played: int = 0
    """Packets that were played."""
    dropped: int = 0
    """Packets that the queue had no room for."""
    ignored: int = 0
    """Packets that came while the device did not speak, or before it had begun to."""
    dry_ms: list[int] = field(default_factory=list)
    """Gaps within a sentence, in which there was nothing to play."""
    early_ms: list[int] = field(default_factory=list)
    """How much was still to be played when ``tts stop`` came, each time that it was."""
    late_ms: list[int] = field(default_factory=list)
    """How long after the last packet ``tts stop`` came, each time that it did."""
    starts: int = 0
    stops: int = 0
    speaking: bool = False
    sentences: list[str] = field(default_factory=list)
    most_queued: int = 0
    """Most packets that waited at once."""

    _begins_ms: int = 0
    """From when on packets count."""
    _queued: int = 0
    _next_ms: int = 0
    """When the packet that is played ends."""
    _heard_any: bool = False
    """A packet has been played since ``tts start``."""
    _new_sentence: bool = False
    """A sentence has begun since the last packet."""

    def receive(self, frame: Frame, at_ms: int) -> None:
        """Take a frame of the server that arrives at ``at_ms``; never earlier than the
        one before.
        """
        self._play_until(at_ms)
        if isinstance(frame, bytes):
            self._packet(at_ms)
            return
        message = json.loads(frame)
        if message["type"] != "tts":
            return
        match message["state"]:
            case "start":
                self.starts += 1
                self.speaking, self._heard_any, self._new_sentence = True, False, True
                self._begins_ms, self._queued = at_ms + self.start_ms, 0
            case "sentence_start":
                self.sentences.append(message["text"])
                self._new_sentence = True
            case "stop":
                self.stops += 1
                if self.speaking:
                    self._stop(at_ms)
            case _:
                pass

    def _packet(self, at_ms: int) -> None:
        if not self.speaking or at_ms < self._begins_ms:
            self.ignored += 1
        elif self._queued >= QUEUE_PACKETS:
            self.dropped += 1
        else:
            if self._heard_any and not self._new_sentence and at_ms > self._next_ms:
                self.dry_ms.append(at_ms - self._next_ms)
            if at_ms >= self._next_ms:
                self._begin_packet(at_ms)
            else:
                self._queued += 1
                self.most_queued = max(self.most_queued, self._queued)
            self._new_sentence = False

    def _begin_packet(self, at_ms: int) -> None:
        self.played += 1
        self._heard_any = True
        self._next_ms = at_ms + self.packet_ms

    def _play_until(self, at_ms: int) -> None:
        while self._queued and self._next_ms <= at_ms:
            self._queued -= 1
            self._begin_packet(self._next_ms)

    def _stop(self, at_ms: int) -> None:
        self.speaking = False
        if not self._heard_any:
            return
        left_ms = self._next_ms + self._queued * self.packet_ms - at_ms
        if left_ms > 0:
            self.early_ms.append(left_ms)
        else:
            self.late_ms.append(-left_ms)
