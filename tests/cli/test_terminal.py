"""The progress bar, the subtitles and the sound card, without any of them."""

import asyncio
import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from voicechat.cli import main
from voicechat.cli.microphone import SoundCard
from voicechat.cli.progress import ProgressBar
from voicechat.cli.subtitles import srt
from voicechat.client import PlaybackBuffer
from voicechat.session.types import Transcript


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal_once_per_percent_and_wiped() -> None:
    terminal = Terminal()
    bar = ProgressBar("a.wav", 1000, terminal)
    for _ in range(1000):
        bar.advance(1)
    drawn = terminal.getvalue()
    assert drawn.count("\r") == 101
    assert drawn.endswith(f"[{'#' * 30}] 100 % a.wav")
    bar.clear()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_is_silent_elsewhere() -> None:
    stream = io.StringIO()
    bar = ProgressBar("a.wav", 0, stream)
    bar.advance(10)
    bar.clear()
    assert stream.getvalue() == ""


def test_subtitles_count_hours() -> None:
    sentences = [
        Transcript("One.", 1_500, 2_750),
        Transcript("Two.", 3_600_000 + 62_003, 3_600_000 + 63_000),
    ]
    assert srt(sentences) == (
        "1\n00:00:01,500 --> 00:00:02,750\nOne.\n\n2\n01:01:02,003 --> 01:01:03,000\nTwo.\n"
    )


def test_playback_is_in_order_and_silence_when_there_is_nothing() -> None:
    playback = PlaybackBuffer(16000)
    playback.add_audio(b"abc")
    playback.add_audio(b"def")
    assert playback.take_audio(4) == b"abcd"
    assert playback.take_audio(4) == b"ef\0\0"
    playback.add_audio(b"gh")
    playback.clear()
    assert playback.take_audio(2) == b"\0\0"


class FakeInput:
    """Calls back as PortAudio does, once it is open, and knows whether it is."""

    opened: "list[FakeInput]" = []  # noqa: RUF012 - the one place where the test can reach it

    def __init__(self, callback: Callable[..., None], **settings: object) -> None:
        self.callback = callback
        self.settings = settings
        self.open = False

    def __enter__(self) -> None:
        self.open = True
        FakeInput.opened.append(self)

    def __exit__(self, *_: object) -> None:
        self.open = False


async def test_the_microphone_loses_the_oldest_speech_rather_than_memory() -> None:
    sound: Any = SimpleNamespace(RawInputStream=FakeInput)
    card = SoundCard(sound, 16000, PlaybackBuffer(16000))
    blocks = card.record()
    asyncio.get_running_loop().call_soon(
        lambda: FakeInput.opened[0].callback(memoryview(b"\0\0"), 1, None, None)
    )
    assert await anext(blocks) == b"\0\0"
    [microphone] = FakeInput.opened
    assert microphone.settings["blocksize"] == 1600
    for number in range(60):
        microphone.callback(memoryview(bytes([number, 0])), 1, None, None)
    await asyncio.sleep(0)
    assert await anext(blocks) == bytes([10, 0])
    await blocks.aclose()
    assert not microphone.open


def test_without_a_microphone_the_way_out_is_told(
    directory: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        sys.modules, "sounddevice", None
    )  # What Python itself does for a module that cannot be found.
    assert main(["talk"]) == 2
    told = capsys.readouterr().err
    assert "pip install 'voicechat[mic]'" in told
    assert "voicechat talk hello.wav" in told
    del directory
