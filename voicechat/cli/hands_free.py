"""A hands-free conversation: the microphone stays open and the server detects turns."""

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
    PictureMessage,
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
"""A conversation with a recording ends after this much silence, which is longer than
endpointing ever waits.
"""
MOST_ANSWER_S = 300.0
"""Bound of the conversation after the recording. A longer reply is cut off."""


class HandsFreeConversation:
    """Sends the microphone's audio, plays replies, and stops playback when the server
    cancels a reply.
    """

    def __init__(
        self,
        conversation: ClientConversation,
        devices: AudioDevices,
        write: Callable[[str], None],
        *,
        events: bool = False,
    ) -> None:
        """``events``: also print turn detection events with their times."""
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
        """Whether a turn is in progress: the user speaks, or the reply is not finished.
        """

    async def run(self, settings: Mapping[str, object]) -> None:
        """Converse until the microphone ends.

        Raises, in a group, CommandError if the server refuses the settings or ends the
        conversation, or ConnectionLostError. Cancelling closes the microphone.
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
            case PictureMessage(url=url, error=reason):
                self._line(f"(picture: {url or reason})")
            case ErrorMessage(message=reason):
                self._line(f"(the server reports: {reason})")
            case UpdatedMessage(status=status, message=reason) if status:
                raise CommandError(f"the server refuses the settings: {reason}")
            case _:
                pass  # Other messages answer requests that this class does not send.

    def _note(self, event: str) -> None:
        if self._events:
            self._line(f"({event})")

    def _line(self, text: str, end: str = "\n") -> None:
        """Print a line, ending the line of a reply that is being printed."""
        begin = "\n" if self._answering and end else ""
        if end:
            self._answering = False
        at = f"{asyncio.get_running_loop().time() - self._began_s:7.2f} s  " if self._events else ""
        self._write(f"{begin}{at}{text}{end}")


class RecordedPerson:
    """Simulated audio devices: the microphone plays a recording in real time, then
    silence.

    ``heard`` collects the audio played by the simulated loudspeaker.
    """

    def __init__(self, pcm: bytes, play_rate_hz: int) -> None:
        self._pcm = pcm
        self._play_rate_hz = play_rate_hz
        self._playback = PlaybackBuffer(play_rate_hz)
        self.heard = bytearray()
        self.answered: Callable[[], bool] = lambda: True
        """Returns whether all turns were answered; called after the recording ends."""

    @property
    def playback(self) -> PlaybackBuffer:
        """The buffer of the simulated loudspeaker."""
        return self._playback

    async def record(self) -> AsyncGenerator[bytes, None]:
        """Yield 100 ms blocks until 3 s of silence after the recording."""
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
