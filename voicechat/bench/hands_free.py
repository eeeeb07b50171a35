"""A simulated hands-free user: the microphone is always open, the server detects the
end of turns, and no reply is interrupted.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from voicechat.bench.playout import Playout
from voicechat.bench.script import FRAME, FRAME_MS, REPLY_AUDIO_MS
from voicechat.bench.talker import TURN_S, Tally
from voicechat.client import (
    ClientConversation,
    ErrorMessage,
    ReplyAudioMessage,
    TurnCompletedMessage,
)
from voicechat.errors import VoiceChatError


class HandsFreeTalker:
    """Repeats ``speech`` (a list of frames), and listens to every reply to its end."""

    def __init__(
        self, conversation: ClientConversation, tally: Tally, speech: Sequence[bytes], output: str
    ) -> None:
        self._conversation = conversation
        self._tally = tally
        self._speech = speech
        self._output = output
        self._waiting: deque[bytes] = deque()
        self._said_s = 0.0
        self._loop = asyncio.get_running_loop()

    async def talk_until(self, end_s: float) -> None:
        """Take turns until ``end_s``; see ``Talker.talk_until``."""
        microphone = self._loop.create_task(self._send_frames())
        try:
            while self._loop.time() < end_s:
                self._tally.begun += 1
                self._waiting.extend(self._speech)
                async with asyncio.timeout(TURN_S):
                    first_audio_s = await self._hear()
                await asyncio.sleep(
                    min(first_audio_s + REPLY_AUDIO_MS / 1000, end_s) - self._loop.time()
                )
        except (VoiceChatError, TimeoutError):
            self._tally.lost += 1
        finally:
            microphone.cancel()
            await asyncio.wait([microphone])
        if not microphone.cancelled() and microphone.exception() is not None:
            self._tally.lost += 1

    async def _send_frames(self) -> None:
        due_s = self._loop.time()
        while True:
            await self._conversation.send_audio(self._waiting.popleft() if self._waiting else FRAME)
            if len(self._waiting) == 1:
                self._said_s = self._loop.time() + FRAME_MS / 1000
            due_s += FRAME_MS / 1000
            await asyncio.sleep(due_s - self._loop.time())

    async def _hear(self) -> float:
        """Wait for a whole reply. Returns the time of its first audio (loop time)."""
        playout = Playout(self._output)
        while not isinstance(message := await self._conversation.receive(), TurnCompletedMessage):
            if isinstance(message, ErrorMessage):
                self._tally.lost += 1
            elif isinstance(message, ReplyAudioMessage):
                playout.add_audio(message.payload, self._loop.time())
        if playout.first_s is None:
            raise TimeoutError
        self._tally.waits_ms.append((playout.first_s - self._said_s) * 1000)
        self._tally.late_audio_ms.append(playout.late_ms)
        return playout.first_s
