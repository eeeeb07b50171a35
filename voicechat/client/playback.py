"""Playback for hands-free clients: plays replies in order, stops at once when the user
interrupts, and reports how much was played.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass

from voicechat.client.connection import ConnectionLostError
from voicechat.client.conversation import ClientConversation
from voicechat.client.messages import CanceledMessage, ReplyAudioMessage, ServerMessage

REPORT_S = 0.2
"""Interval between reports. Between two reports the server extrapolates the position.
"""
MOST_S = 900
"""Bound of the buffer in seconds of speech. Audio beyond it is dropped."""
_BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class PlaybackPosition:
    """How much of a reply was played."""

    reply_id: str
    played_ms: int


@dataclass(slots=True)
class _Waiting:
    reply_id: str
    pcm: bytearray


class PlaybackBuffer:
    """The playback buffer: s16le mono. Thread-safe, because sound cards read from their
    own threads.
    """

    def __init__(self, rate_hz: int, latency_ms: int = 0) -> None:
        """``latency_ms``: the time from `take_audio` until a sample is audible."""
        self._rate_hz = rate_hz
        self._latency_ms = latency_ms
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._reply_id: str | None = None
        self._taken_bytes = 0
        self._lock = threading.Lock()

    def add_audio(self, pcm: bytes, reply_id: str = "") -> None:
        """Append audio of a reply."""
        with self._lock:
            room_bytes = MOST_S * self._rate_hz * _BYTES_PER_SAMPLE - self._waiting_bytes
            if not self._waiting or self._waiting[-1].reply_id != reply_id:
                self._waiting.append(_Waiting(reply_id, bytearray()))
            self._waiting[-1].pcm += pcm[:room_bytes]
            self._waiting_bytes += len(pcm[:room_bytes])

    def clear(self) -> None:
        """Discard all audio that was not yet taken."""
        with self._lock:
            self._waiting.clear()
            self._waiting_bytes = 0

    def take_audio(self, n_bytes: int) -> bytes:
        """Return the next ``n_bytes``, padded with silence."""
        taken = bytearray()
        with self._lock:
            while self._waiting and len(taken) < n_bytes:
                waiting = self._waiting[0]
                piece = waiting.pcm[: n_bytes - len(taken)]
                del waiting.pcm[: len(piece)]
                if not waiting.pcm:
                    self._waiting.popleft()
                if waiting.reply_id != self._reply_id:
                    self._reply_id, self._taken_bytes = waiting.reply_id, 0
                taken += piece
                self._taken_bytes += len(piece)
            self._waiting_bytes -= len(taken)
        return bytes(taken).ljust(n_bytes, b"\0")

    @property
    def waiting_ms(self) -> int:
        """Milliseconds of buffered audio."""
        return self._waiting_bytes * 1000 // (self._rate_hz * _BYTES_PER_SAMPLE)

    @property
    def played(self) -> PlaybackPosition | None:
        """The playback position of the reply that was taken from last; None before any
        audio was taken.
        """
        with self._lock:
            if self._reply_id is None:
                return None
            taken_ms = self._taken_bytes * 1000 // (self._rate_hz * _BYTES_PER_SAMPLE)
            return PlaybackPosition(self._reply_id, max(0, taken_ms - self._latency_ms))


class ReplyPlayer:
    """Fills a buffer from a conversation whose replies are raw PCM, and reports the
    playback position.
    """

    def __init__(self, conversation: ClientConversation, playback: PlaybackBuffer) -> None:
        self._conversation = conversation
        self._playback = playback
        self._reported: PlaybackPosition | None = None

    def handle_message(self, message: ServerMessage) -> None:
        """Queue the audio of a message; clear the buffer at ``CanceledMessage``. Pass
        every message without delay.
        """
        match message:
            case ReplyAudioMessage():
                self._playback.add_audio(message.payload, message.reply_id)
            case CanceledMessage():
                self._playback.clear()
            case _:
                pass  # The other messages make no sound.

    async def interrupt(self) -> None:
        """Stop playback and cancel the reply. The history keeps what was played.

        Raises ConnectionLostError.
        """
        self._playback.clear()
        await self._report()
        await self._conversation.cancel()

    async def report_playback(self) -> None:
        """Report the playback position every 200 ms on change, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                await self._report()
            except ConnectionLostError:
                return  # The caller's next send or receive raises.

    async def _report(self) -> None:
        played = self._playback.played
        if played is not None and played.reply_id and played != self._reported:
            self._reported = played
            await self._conversation.report_played(played.reply_id, played.played_ms)
