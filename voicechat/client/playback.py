"""Plays replies as a hands-free client must: in order, silent at once when told, and
telling how much was heard.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass

from voicechat.client.connection import ConnectionLostError
from voicechat.client.conversation import ClientConversation
from voicechat.client.messages import CanceledMessage, ReplyAudioMessage, ServerMessage

REPORT_S = 0.2
"""How often a change is told. Between two reports the server's clock goes on by itself.
"""
MOST_S = 900
"""Speech that waits to be played; of more, the end is lost rather than memory."""
_BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class PlaybackPosition:
    """How much of a reply has been heard."""

    reply_id: str
    played_ms: int


@dataclass(slots=True)
class _Waiting:
    reply_id: str
    pcm: bytearray


class PlaybackBuffer:
    """Speech, s16le mono, that waits for the loudspeaker. Any thread may call: sound
    cards take it on their own.
    """

    def __init__(self, rate_hz: int, latency_ms: int = 0) -> None:
        """``latency_ms``: how long after it was taken a sample is heard."""
        self._rate_hz = rate_hz
        self._latency_ms = latency_ms
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._reply_id: str | None = None
        self._taken_bytes = 0
        self._lock = threading.Lock()

    def add_audio(self, pcm: bytes, reply_id: str = "") -> None:
        """Append speech of a reply."""
        with self._lock:
            room_bytes = MOST_S * self._rate_hz * _BYTES_PER_SAMPLE - self._waiting_bytes
            if not self._waiting or self._waiting[-1].reply_id != reply_id:
                self._waiting.append(_Waiting(reply_id, bytearray()))
            self._waiting[-1].pcm += pcm[:room_bytes]
            self._waiting_bytes += len(pcm[:room_bytes])

    def clear(self) -> None:
        """Forget what has not been taken."""
        with self._lock:
            self._waiting.clear()
            self._waiting_bytes = 0

    def take_audio(self, n_bytes: int) -> bytes:
        """Give the next ``n_bytes``, filled up with silence."""
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
        """Speech that has not been taken."""
        return self._waiting_bytes * 1000 // (self._rate_hz * _BYTES_PER_SAMPLE)

    @property
    def played(self) -> PlaybackPosition | None:
        """How much has been heard of the reply that was taken from last; None: nothing
        has been taken.
        """
        with self._lock:
            if self._reply_id is None:
                return None
            taken_ms = self._taken_bytes * 1000 // (self._rate_hz * _BYTES_PER_SAMPLE)
            return PlaybackPosition(self._reply_id, max(0, taken_ms - self._latency_ms))


class ReplyPlayer:
    """Feeds a buffer from a conversation whose replies come as bare PCM, and reports
    what was heard of them.
    """

    def __init__(self, conversation: ClientConversation, playback: PlaybackBuffer) -> None:
        self._conversation = conversation
        self._playback = playback
        self._reported: PlaybackPosition | None = None

    def handle_message(self, message: ServerMessage) -> None:
        """Play the audio among the messages; at ``CanceledMessage`` fall silent. Give it every
        message, at once.
        """
        match message:
            case ReplyAudioMessage():
                self._playback.add_audio(message.payload, message.reply_id)
            case CanceledMessage():
                self._playback.clear()
            case _:
                pass  # The other messages make no sound.

    async def interrupt(self) -> None:
        """Fall silent, and stop the reply: it is remembered as far as it was heard.
        Raises ConnectionLostError.
        """
        self._playback.clear()
        await self._report()
        await self._conversation.cancel()

    async def report_playback(self) -> None:
        """Tell the server what was heard, five times a second while it changes, until
        cancelled.
        """
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                await self._report()
            except ConnectionLostError:
                return  # Whoever iterates or sends learns of it.

    async def _report(self) -> None:
        played = self._playback.played
        if played is not None and played.reply_id and played != self._reported:
            self._reported = played
            await self._conversation.report_played(played.reply_id, played.played_ms)
