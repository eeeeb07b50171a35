"""A simulated user: speaks in real time, listens, and interrupts every second reply in
the middle of its audio.
"""

import asyncio
from dataclasses import dataclass, field

from voicechat.bench.playout import Playout
from voicechat.bench.script import DELAYS, FRAME, FRAME_MS, REPLY_AUDIO_MS, SPEECH_MS, first_frame
from voicechat.bench.stages import AnsweredTurn
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    ErrorMessage,
    PongMessage,
    ReplyAudioMessage,
    ReplyFinishedMessage,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
)
from voicechat.errors import VoiceChatError

TURN_S = 15.0
"""Timeout of a turn; after it the turn counts as lost."""
LATE_MS = 200
"""Overhead that a listener notices."""
INTERRUPT_AT_FRAME = 5
"""The user interrupts at this frame of a reply, after about 0.5 s of audio."""


@dataclass(slots=True)
class Tally:
    """The results of all simulated users of a bench."""

    answers: list[AnsweredTurn] = field(default_factory=list)
    interruptions_ms: list[float] = field(default_factory=list)
    """From ``cancel`` to ``canceled``."""
    waits_ms: list[float] = field(default_factory=list)
    """Hands-free: from the end of the user's speech to the first audio, including
    endpointing.
    """
    late_audio_ms: list[float] = field(default_factory=list)
    """For each reply, the longest underrun of a player without a jitter buffer."""
    lost: int = 0
    stale: int = 0
    """Messages of a cancelled reply that arrived after ``canceled``."""
    begun: int = 0
    """The number of turns begun, and of the last turn."""

    @property
    def turns(self) -> int:
        """The number of answered turns."""
        return len(self.answers) + len(self.waits_ms)

    @property
    def overheads_ms(self) -> list[float]:
        """From ``complete`` to the first audio, less the scripted delays."""
        return [answer.took_ms - DELAYS.first_audio_ms for answer in self.answers]

    @property
    def late(self) -> int:
        """The number of turns whose overhead exceeds ``LATE_MS``."""
        return sum(overhead_ms > LATE_MS for overhead_ms in self.overheads_ms)


@dataclass(slots=True)
class _Turn:
    """The state of a turn since ``complete``."""

    number: int
    begun_s: float
    interrupt: bool
    playout: Playout
    frames: int = 0
    reply_id: str = ""
    cancel_s: float | None = None
    canceled: bool = False
    completed: bool = False

    @property
    def first_audio_s(self) -> float | None:
        """Arrival time of the reply's first audio."""
        return self.playout.first_s

    @property
    def over(self) -> bool:
        """Whether the turn has ended and all its requests were answered."""
        return self.completed and (self.cancel_s is None or self.canceled)


class Talker:
    """One simulated user on one conversation. All users share the ``tally``."""

    def __init__(
        self,
        conversation: ClientConversation,
        tally: Tally,
        *,
        output: str,
        interrupts_first: bool = False,
    ) -> None:
        """``output`` is the audio format of replies.

        ``interrupts_first``: whether to interrupt the odd replies (first, third, ...)
        or the even ones.
        """
        self._conversation = conversation
        self._tally = tally
        self._output = output
        self._interrupts = interrupts_first
        self._canceled_ids: set[str] = set()
        self._loop = asyncio.get_running_loop()

    async def talk_until(self, end_s: float) -> None:
        """Take turns; the last one begins before ``end_s`` (loop time).

        A turn that fails or takes longer than 15 s counts as lost and ends the
        conversation.
        """
        try:
            while self._loop.time() < end_s:
                self._tally.begun += 1
                number = self._tally.begun
                await self._speak(number)
                async with asyncio.timeout(TURN_S):
                    turn = await self._hear(number, interrupt=self._interrupts)
                await self._listen_on(turn, end_s)
                self._interrupts = not self._interrupts
            async with asyncio.timeout(TURN_S):
                await self._see_what_is_left()
        except (VoiceChatError, TimeoutError):
            self._tally.lost += 1

    async def _speak(self, turn: int) -> None:
        begun_s = self._loop.time()
        for sent_ms in range(0, SPEECH_MS, FRAME_MS):
            await self._conversation.send_audio(FRAME if sent_ms else first_frame(turn))
            due_s = begun_s + (sent_ms + FRAME_MS) / 1000
            await asyncio.sleep(due_s - self._loop.time())

    async def _hear(self, number: int, *, interrupt: bool) -> _Turn:
        turn = _Turn(number, self._loop.time(), interrupt, Playout(self._output))
        await self._conversation.complete()
        while not turn.over:
            await self._take(await self._conversation.receive(), turn)
        if turn.first_audio_s is None:
            self._tally.lost += 1
        else:
            self._tally.answers.append(AnsweredTurn(number, turn.begun_s, turn.first_audio_s))
            self._tally.late_audio_ms.append(turn.playout.late_ms)
        return turn

    async def _take(self, message: ServerMessage, turn: _Turn) -> None:
        self._count_stale(message)
        match message:
            case ReplyAudioMessage():
                await self._take_audio(message, turn)
            case CanceledMessage():
                assert turn.cancel_s is not None
                turn.canceled = True
                self._canceled_ids.add(turn.reply_id)
                self._tally.interruptions_ms.append((self._loop.time() - turn.cancel_s) * 1000)
            case TurnCompletedMessage():
                turn.completed = True
            case ErrorMessage():
                self._tally.lost += 1
            case _:
                pass  # Text, recognition results and answers are not measured.

    async def _take_audio(self, audio: ReplyAudioMessage, turn: _Turn) -> None:
        turn.playout.add_audio(audio.payload, self._loop.time())
        turn.frames += 1
        if turn.interrupt and turn.frames == INTERRUPT_AT_FRAME:
            turn.reply_id = audio.reply_id
            turn.cancel_s = self._loop.time()
            await self._conversation.cancel()

    def _count_stale(self, message: ServerMessage) -> None:
        if (
            isinstance(message, ReplyAudioMessage | ReplyTextMessage | ReplyFinishedMessage)
            and message.reply_id in self._canceled_ids
        ):
            self._tally.stale += 1

    async def _listen_on(self, turn: _Turn, end_s: float) -> None:
        """Wait until the reply would have been played to its end, unless it was
        cancelled.
        """
        if turn.first_audio_s is not None and not turn.canceled:
            heard_s = turn.first_audio_s + REPLY_AUDIO_MS / 1000
            await asyncio.sleep(min(heard_s, end_s) - self._loop.time())

    async def _see_what_is_left(self) -> None:
        """Read all messages in flight, to count those of a cancelled last reply."""
        await self._conversation.ping()
        while not isinstance(message := await self._conversation.receive(), PongMessage):
            self._count_stale(message)
