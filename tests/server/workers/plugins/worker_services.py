"""Services whose processes can be told apart, held up and killed, by a name in their
configuration.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from voicechat.processes.machine_share import machine_share
from voicechat.providers.interfaces import (
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
)
from voicechat.session.types import Transcript
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer


class Recognizer:
    """Scripted; writes down where it is started and used. ``fault`` "late": the last
    worker waits for a file.
    """

    def __init__(self, folder: str, fault: str) -> None:
        self._folder = Path(folder)
        self._fault = fault
        self._script = ScriptedRecognizer(texts=("hello there",), word_ms=100)

    async def start(self) -> None:
        mine = machine_share()
        with (self._folder / "started").open("a") as file:
            file.write(f"{mine.number} {os.getpid()}\n")
        match self._fault:
            case "late" if mine.number == mine.processes - 1:
                while not (self._folder / "go").exists():  # noqa: ASYNC110 - a file of another process
                    await asyncio.sleep(0.02)
            case "broken":
                raise RuntimeError("no model here")
            case "killed":
                os.kill(os.getpid(), 9)
            case "mortal":
                asyncio.get_running_loop().call_later(1.0, os._exit, 3)
            case _:
                pass

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        with (self._folder / "recognised").open("a") as file:
            file.write(f"{machine_share().number}\n")
        return self._script.recognize(audio, options)


def open_recognizer(*, folder: str, fault: str = "") -> Recognizer:
    return Recognizer(folder, fault)


class Model:
    """Scripted; its replies end once the file ``held`` is not there."""

    def __init__(self, delta_ms: int, held: Path) -> None:
        self._script = ScriptedModel((("One. ", "Two. ", "Three."),), delta_ms=delta_ms)
        self._held = held

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        async for part in self._script.reply(request):
            if isinstance(part, ReplyFinished):
                while self._held.exists():  # noqa: ASYNC110 - a file of another process
                    await asyncio.sleep(0.02)
            yield part


def open_chat_model(*, delta_ms: int, held: str) -> Model:
    return Model(delta_ms, Path(held))


def open_synthesizer() -> ScriptedSynthesizer:
    return ScriptedSynthesizer()
