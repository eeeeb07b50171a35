"""A push-to-talk conversation at the terminal: Enter to speak, Enter to send, Enter
again to interrupt the reply.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TextIO

from voicechat.cli.command import CommandError
from voicechat.cli.microphone import AudioDevices
from voicechat.client import (
    ClientConversation,
    ErrorMessage,
    PictureMessage,
    PlaybackBuffer,
    ReplyPlayer,
    ReplyTextMessage,
    ServerMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
)

LIVE_RATE_HZ = 22050
LIVE_FORMAT = f"PCM_{LIVE_RATE_HZ}HZ_MONO_16BIT"

_MAX_LINES = 16


class LiveConversation:
    """A push-to-talk conversation. ``entered`` waits for the Enter key."""

    def __init__(
        self,
        conversation: ClientConversation,
        devices: AudioDevices,
        entered: Callable[[], Awaitable[None]],
        write: Callable[[str], None],
    ) -> None:
        self._conversation = conversation
        self._devices = devices
        self._player = ReplyPlayer(conversation, devices.playback or PlaybackBuffer(LIVE_RATE_HZ))
        self._entered = entered
        self._write = write
        self._listening = asyncio.Event()
        self._listening.set()

    async def run(self, settings: Mapping[str, object]) -> None:
        """Converse until cancelled. Raises, in a group, CommandError or
        ConnectionLostError if the server ends the conversation.
        """
        await self._conversation.update(settings)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._player.report_playback())
            while True:
                self._write("\n[Enter to speak] ")
                await self._entered()
                await self._interrupt()
                await self._speak(tasks)

    async def _interrupt(self) -> None:
        await self._player.interrupt()
        await self._listening.wait()

    async def _speak(self, tasks: asyncio.TaskGroup) -> None:
        self._write("[listening; Enter to send] ")
        sending = tasks.create_task(self._send())
        await self._entered()
        sending.cancel()
        await asyncio.wait([sending])
        self._listening.clear()
        await self._conversation.complete()

    async def _send(self) -> None:
        async for block in self._devices.record():
            await self._conversation.send_audio(block)

    async def _receive(self) -> None:
        async for message in self._conversation:
            self._take(message)
        raise CommandError("the server ended the conversation")

    def _take(self, message: ServerMessage) -> None:
        self._player.handle_message(message)
        match message:
            case TranscriptMessage(text=text) if message.final:
                self._write(f"\nyou:    {text}\nanswer: ")
            case ReplyTextMessage(content=content):
                self._write(content)
            case TurnCompletedMessage():
                self._listening.set()
            case PictureMessage(url=url, error=reason):
                self._write(f"\n(picture: {url or reason})\n")
            case ErrorMessage(message=reason):
                self._write(f"\n(the server reports: {reason})\n")
            case UpdatedMessage(status=status, message=reason) if status:
                raise CommandError(f"the server refuses the settings: {reason}")
            case _:
                pass  # Other messages need no output.


async def converse_live(
    conversation: ClientConversation,
    settings: Mapping[str, object],
    devices: AudioDevices,
    keyboard: TextIO,
    screen: TextIO,
) -> None:
    """Hold a push-to-talk conversation at a terminal until Ctrl-C."""

    def write(text: str) -> None:
        screen.write(text)
        screen.flush()

    async with enter_key(keyboard) as entered:
        await LiveConversation(conversation, devices, entered, write).run(settings)


@asynccontextmanager
async def enter_key(keyboard: TextIO) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Yield a function that waits for the next line. It raises CommandError at the end
    of the input.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue(_MAX_LINES)

    def take(line: str) -> None:
        if not lines.full():
            lines.put_nowait(line)

    def read() -> None:
        line = keyboard.readline()
        if not line:
            loop.remove_reader(keyboard)
        take(line)

    def read_all() -> None:
        # A thread that waits for input cannot be stopped. The loop may be closed by the
        # time a line arrives.
        with contextlib.suppress(RuntimeError):
            while line := keyboard.readline():
                loop.call_soon_threadsafe(take, line)
            loop.call_soon_threadsafe(take, "")

    async def entered() -> None:
        if not await lines.get():
            raise CommandError("the keyboard is closed")

    try:
        loop.add_reader(keyboard, read)
    except NotImplementedError:  # Windows' loop
        threading.Thread(target=read_all, name="keyboard", daemon=True).start()
        yield entered
        return
    try:
        yield entered
    finally:
        loop.remove_reader(keyboard)
