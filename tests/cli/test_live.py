import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from voicechat.cli.command import CommandError
from voicechat.cli.live import LiveConversation, converse_live, enter_key
from voicechat.client import PlaybackBuffer, chat_settings, connect
from voicechat.config import load_config
from voicechat.runtime.services import Services
from voicechat.server.serve import credentials, serving
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

pytestmark = pytest.mark.real_time


class Loudspeaker(PlaybackBuffer):
    """Plays to nobody, and tells that it has been given something."""

    def __init__(self) -> None:
        super().__init__(22050)
        self.given = asyncio.Event()

    def add_audio(self, pcm: bytes, reply_id: str = "") -> None:
        super().add_audio(pcm, reply_id)
        self.given.set()


class FakeDevices:
    """A microphone that always hears the same block, and a loudspeaker that keeps what
    it is given.
    """

    def __init__(self) -> None:
        self.playback = Loudspeaker()
        self.recording = 0
        self.blocks = asyncio.Event()

    async def record(self) -> AsyncIterator[bytes]:
        self.recording += 1
        try:
            while True:
                yield bytes(3200)
                self.blocks.set()
                await asyncio.sleep(0.005)
        finally:
            self.recording -= 1


class Person:
    """Presses Enter when told to, and waits for what the screen shows."""

    def __init__(self) -> None:
        self.keys: asyncio.Queue[None] = asyncio.Queue()
        self.screen = ""
        self.written = asyncio.Event()

    async def entered(self) -> None:
        await self.keys.get()

    def write(self, text: str) -> None:
        self.screen += text
        self.written.set()

    async def reads(self, text: str) -> None:
        while text not in self.screen:
            self.written.clear()
            await self.written.wait()
        self.screen = self.screen.split(text, 1)[1]


async def test_speaking_hearing_and_interrupting(tmp_path: Path) -> None:
    config = load_config(None, {"VOICECHAT_DATA_DIR": str(tmp_path)}, {"server": {"port": 0}})
    services = Services(
        recognizers={"default": ScriptedRecognizer(texts=("first", "second"))},
        models={
            "default": ScriptedModel(replies=(("One. ", *["More. "] * 1000), ("Two.",)), delta_ms=5)
        },
        synthesizers={"default": ScriptedSynthesizer()},
    )
    devices, person = FakeDevices(), Person()

    async def talk() -> None:
        await person.reads("[Enter to speak]")
        person.keys.put_nowait(None)
        await devices.blocks.wait()
        person.keys.put_nowait(None)
        await person.reads("you:    first\nanswer: One. ")
        await devices.playback.given.wait()
        person.keys.put_nowait(None)  # interrupts
        await person.reads("[listening; Enter to send]")
        assert devices.playback.waiting_ms == 0
        devices.blocks.clear()
        await devices.blocks.wait()
        person.keys.put_nowait(None)
        await person.reads("you:    second\nanswer: Two.")

    async with (
        serving(config, services, credentials(config), print) as server,
        connect(server.url, key=server.key or "") as conversation,
    ):
        live = LiveConversation(conversation, devices, person.entered, person.write)
        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(
                live.run(chat_settings(output_format="PCM_22050HZ_MONO_16BIT"))
            )
            await talk()
            running.cancel()
    assert devices.recording == 0


@pytest.fixture(params=["a loop with readers", "one without, as on Windows"])
def _loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_implemented(*_: object) -> None:
        raise NotImplementedError

    if "without" in request.param:
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_reader", not_implemented)


@pytest.mark.usefixtures("_loops")
async def test_each_line_of_the_keyboard_is_told() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as keyboard, os.fdopen(writing, "w") as typing:
        async with enter_key(keyboard) as entered, asyncio.timeout(120):
            for _ in range(2):
                typing.write("\n")
                typing.flush()
                await entered()
            typing.close()
            with pytest.raises(CommandError, match="the keyboard is closed"):
                await entered()


@pytest.mark.usefixtures("_loops")
async def test_a_closed_keyboard_ends_the_conversation(tmp_path: Path) -> None:
    config = load_config(None, {"VOICECHAT_DATA_DIR": str(tmp_path)}, {"server": {"port": 0}})
    services = Services(
        recognizers={"default": ScriptedRecognizer()},
        models={"default": ScriptedModel()},
        synthesizers={"default": ScriptedSynthesizer()},
    )
    settings = chat_settings(output_format="PCM_22050HZ_MONO_16BIT")
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading) as keyboard:
        async with (
            serving(config, services, credentials(config), print) as server,
            connect(server.url, key=server.key or "") as conversation,
        ):
            with pytest.raises(ExceptionGroup) as raised:
                await converse_live(conversation, settings, FakeDevices(), keyboard, io.StringIO())
    assert raised.group_contains(CommandError, match="keyboard")
