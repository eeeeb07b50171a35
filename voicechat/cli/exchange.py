"""Recorded turns over the socket: send the speech, print and collect the reply."""

import asyncio
from collections.abc import Mapping
from typing import TextIO

from voicechat.cli.command import CommandError
from voicechat.cli.recordings import in_pieces
from voicechat.client import (
    ClientConversation,
    CompletedMessage,
    ErrorMessage,
    PictureMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
)


class Exchange:
    """A conversation of recorded turns. ``audio`` collects the encoded replies."""

    def __init__(self, conversation: ClientConversation, output: TextIO) -> None:
        self.audio = bytearray()
        self._conversation = conversation
        self._output = output
        self._completed_s: float | None = None
        self._first_text_ms: int | None = None
        self._first_audio_ms: int | None = None

    async def configure(self, settings: Mapping[str, object]) -> None:
        """Apply settings before the first audio. Raises CommandError with the server's
        reason if it refuses them.
        """
        await self._conversation.update(settings)
        while not isinstance(answer := await self._conversation.receive(), UpdatedMessage):
            pass
        if not answer.granted:
            raise CommandError(f"the server refuses the settings: {answer.message}")

    async def turn(self, pcm: bytes) -> None:
        """Send one turn and wait for its end.

        Raises CommandError, in a group, if nothing was recognised or the server failed.
        Speech is sent while messages are read, because a server whose messages are not
        read stops reading.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send(pcm))
            if not await self._receive():
                raise CommandError("nothing was recognised in the recording")

    def latency(self) -> str:
        """Describe the latency of the reply, counted from the end of the turn."""
        return (
            f"first text after {self._first_text_ms} ms, "
            f"first audio after {self._first_audio_ms} ms"
        )

    async def _send(self, pcm: bytes) -> None:
        async for piece in in_pieces(pcm):
            await self._conversation.send_audio(piece)
        await self._conversation.complete()

    async def _receive(self) -> bool:
        """Print messages until the turn ends. Returns whether speech was recognised."""
        heard = False
        async for message in self._conversation:
            heard = heard or (
                isinstance(message, TranscriptMessage) and message.final and bool(message.text)
            )
            if isinstance(message, TurnCompletedMessage):
                self._write("\n" if self._first_text_ms is not None else "")
                return heard
            self._take(message)
        raise CommandError("the server ended the conversation")

    def _take(self, message: ServerMessage) -> None:
        match message:
            case CompletedMessage(status=status, message=reason):
                if status:
                    raise CommandError(f"the server refuses the turn: {reason}")
                self._completed_s = self._now_s()
            case TranscriptMessage(text=text) if message.final:
                self._write(f"you:    {text}\n")
            case ReplyTextMessage(content=content):
                if self._first_text_ms is None:
                    self._first_text_ms = self._since_completed_ms()
                    self._write("answer: ")
                self._write(content)
            case ReplyAudioMessage(payload=payload):
                self.audio += payload
                if self._first_audio_ms is None:
                    self._first_audio_ms = self._since_completed_ms()
            case PictureMessage(url=url, error=reason):
                self._write(f"\n(picture: {url or reason})\n")
            case ErrorMessage(message=reason):
                raise CommandError(f"the server reports: {reason}")
            case _:
                pass  # Other messages answer requests that this class does not send.

    def _since_completed_ms(self) -> int | None:
        return (
            None if self._completed_s is None else round((self._now_s() - self._completed_s) * 1000)
        )

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()
