"""A conversation without a button: the microphone stays open, and the server knows
whose turn it is.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

from voicechat.cli.command import CommandError
from voicechat.cli.microphone import AudioDevices
from voicechat.cli.recordings import PIECE_BYTES
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    CompletedMessage,
    ErrorMessage,
    PlaybackBuffer,
    ReplyPlayer,
    ReplyTextMessage,
    ServerMessage,
    SpeechStartedMessage,
    SpeechStoppedMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
)
from voicechat.providers.interfaces import PCM_RATE_HZ

PIECE_S = PIECE_BYTES / (PCM_RATE_HZ * 2)
QUIET_S = 3.0
"""A conversation with a recording is over when for so long after it nobody has said
anything: the longest wait for the end of a turn is shorter.
"""
MOST_ANSWER_S = 300.0
"""An answer that is longer is not heard to its end."""


class HandsFreeConversation:
    """Listens all the time, speaks when it is answered, and falls silent when the
    server says so.
    """

    def __init__(
        self,
        conversation: ClientConversation,
        devices: AudioDevices,
        write: Callable[[str], None],
        *,
        events: bool = False,
    ) -> None:
        """``events``: also write what the server notices, and when."""
        self._conversation = conversation
        self._devices = devices
        self._player = (
            ReplyPlayer(conversation, devices.playback) if devices.playback is not None else None
        )
        self._write = write
        self._events = events
        self._answering = False
        self._began_s = 0.0
        self.busy = False
        """Whether a turn is in progress: the user is speaking, or is being answered."""

    async def run(self, settings: Mapping[str, object]) -> None:
        """Converse until the microphone ends.

        Raises, in a group, CommandError when the server refuses or ends the
        conversation, and ConnectionLostError. Cancelling closes the microphone.
        """
        await self._conversation.update(settings)
        self._began_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self._receive())]
            if self._player is not None:
                background.append(tasks.create_task(self._player.report_playback()))
            async for block in self._devices.record():
                await self._conversation.send_audio(block)
            for task in background:
                task.cancel()

    async def _receive(self) -> None:
        async for message in self._conversation:
            if self._player is not None:
                self._player.handle_message(message)
            self._take(message)
        raise CommandError("the server ended the conversation")

    def _take(self, message: ServerMessage) -> None:
        match message:
            case SpeechStartedMessage():
                self.busy = True
                self._note("you speak")
            case SpeechStoppedMessage():
                self._note("you pause")
            case CompletedMessage() if message.granted:
                self._note("your turn has ended")
            case TranscriptMessage(text=text) if message.final and text:
                self._line(f"you:    {text}")
            case ReplyTextMessage(content=content) if content:
                if not self._answering:
                    self._answering = True
                    self._line("answer: ", end="")
                self._write(content)
            case CanceledMessage():
                self._line("(interrupted)")
            case TurnCompletedMessage():
                self.busy = False
                self._note("the turn is over")
            case ErrorMessage(message=reason):
                self._line(f"(the server reports: {reason})")
            case UpdatedMessage(status=status, message=reason) if status:
                raise CommandError(f"the server refuses the settings: {reason}")
            case _:
                pass  # The other messages answer requests that are not made here.

    def _note(self, event: str) -> None:
        if self._events:
            self._line(f"({event})")

    def _line(self, text: str, end: str = "\n") -> None:
        """Write a line; an answer that is being written is broken off."""
        begin = "\n" if self._answering and end else ""
        if end:
            self._answering = False
        at = f"{asyncio.get_running_loop().time() - self._began_s:7.2f} s  " if self._events else ""
        self._write(f"{begin}{at}{text}{end}")


class RecordedPerson:
    """Devices made of a recording: it is spoken in real time, and then silence; a
    loudspeaker plays to nobody.

    ``heard`` gathers what the loudspeaker has played.
    """

    def __init__(self, pcm: bytes, play_rate_hz: int) -> None:
        self._pcm = pcm
        self._play_rate_hz = play_rate_hz
        self._playback = PlaybackBuffer(play_rate_hz)
        self.heard = bytearray()
        self.answered: Callable[[], bool] = lambda: True
        """Whether nothing more is to be waited for; asked when the recording is over.
        """

    @property
    def playback(self) -> PlaybackBuffer:
        """See ``AudioDevices``."""
        return self._playback

    async def record(self) -> AsyncGenerator[bytes, None]:
        """Yield 100 ms blocks until, after the recording, it has been quiet for
        ``QUIET_S``.
        """
        loop = asyncio.get_running_loop()
        began_s = quiet_from_s = loop.time()
        end_s = began_s + len(self._pcm) / PIECE_BYTES * PIECE_S + MOST_ANSWER_S
        sent = 0
        while loop.time() < min(quiet_from_s + QUIET_S, end_s):
            await asyncio.sleep(began_s + (sent + 1) * PIECE_S - loop.time())
            piece = self._pcm[sent * PIECE_BYTES : (sent + 1) * PIECE_BYTES]
            yield piece.ljust(PIECE_BYTES, b"\0")
            sent += 1
            if piece or self._playback.waiting_ms or not self.answered():
                quiet_from_s = loop.time()
            if self._playback.waiting_ms:
                self.heard += self._playback.take_audio(round(PIECE_S * self._play_rate_hz) * 2)
