"""OpenAI's example ``push_to_talk_app`` as it is: a terminal, a microphone, a speaker.

Its files are in ``push_to_talk/``, unchanged. Only the address and the key are ours, in
the environment, and the sound card, which a test has none of. The example names a type
by a module that its package no longer has; it only annotates with it.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from openai.types.realtime import RealtimeSessionCreateRequest

from tests.openai_realtime.server import KEY, RATE_HZ, realtime_server, speech
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]

EXAMPLE = Path(__file__).parent / "push_to_talk"
MODULES = ("push_to_talk_app", "audio_util")


class SoundCard(ModuleType):
    """In place of ``sounddevice``: somebody speaks into it, and it keeps what is played."""

    def __init__(self, said: bytes) -> None:
        super().__init__("sounddevice")
        self._said = said
        self.heard_samples = 0
        self.InputStream = lambda **_: Microphone(self._said)
        self.OutputStream = lambda **settings: Speaker(self, settings)

    def query_devices(self) -> str:
        return "one of each"


class Microphone:
    """Gives what is said, then silence, as fast as it is asked and not faster than
    time.
    """

    def __init__(self, said: bytes) -> None:
        self._said = np.frombuffer(said, np.int16)
        self._read = 0

    def start(self) -> None:
        self._began_s = asyncio.get_running_loop().time()

    @property
    def read_available(self) -> int:
        passed_s = asyncio.get_running_loop().time() - self._began_s
        return int(passed_s * RATE_HZ) - self._read

    def read(self, count: int) -> tuple[Any, bool]:
        samples = self._said[self._read : self._read + count]
        self._read += count
        whole = np.zeros((count, 1), np.int16)
        whole[: len(samples), 0] = samples
        return np.ascontiguousarray(whole), False

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


class Speaker:
    """Asks for samples as a sound card does, and counts those that are no silence."""

    def __init__(self, card: SoundCard, settings: dict[str, Any]) -> None:
        self._card = card
        self._settings = settings

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._play())

    async def _play(self) -> None:
        count = self._settings["blocksize"]
        while True:
            samples = np.zeros((count, 1), np.int16)
            self._settings["callback"](samples, count, None, None)
            self._card.heard_samples += int(np.count_nonzero(samples))
            await asyncio.sleep(count / RATE_HZ)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example's folder, on the path of modules."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_bytes((EXAMPLE / f"{name}.py.txt").read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


async def test_the_example_talks(
    example: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("textual")
    card = SoundCard(speech(recordings))
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    monkeypatch.setitem(sys.modules, "pyaudio", SimpleNamespace(paInt16=8))
    session = SimpleNamespace(Session=RealtimeSessionCreateRequest)
    monkeypatch.setitem(sys.modules, "openai.types.realtime.session", session)
    model = ScriptedModel((("There you are, ", "go ahead."),))
    async with realtime_server(example, model) as server, asyncio.timeout(60):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        from push_to_talk_app import RealtimeApp  # type: ignore[import-not-found]

        app = RealtimeApp()
        async with app.run_test() as pilot:
            shown = app.query_one("#session-display")
            while "sess_" not in str(shown.render()):
                await pilot.pause()
            await pilot.press("k")
            pane = app.query_one("#bottom-pane")
            while "".join(line.text for line in pane.lines) != "There you are, go ahead.":
                await pilot.pause(0.05)
            while card.heard_samples < RATE_HZ * 0.05 * len("There you are, go ahead.") * 0.9:
                await pilot.pause(0.05)
            await pilot.press("q")
    said = [str(m["content"]) for m in model.requests[-1].messages if m["role"] == "user"]
    assert said == ["go somewhere"]
