import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.espeak import (
    MAX_PIECE_CHARACTERS,
    VOICES,
    EspeakSynthesizer,
    open_synthesizer,
)
from voicechat.providers.espeak_library import EspeakLibrary, OnSamples, Prosody, open_library
from voicechat.providers.interfaces import VoiceOptions

pytestmark = pytest.mark.real_time

RATE_HZ = 22050


@pytest_asyncio.fixture
async def synthesizer() -> AsyncIterator[EspeakSynthesizer]:
    opened = open_synthesizer()
    yield opened
    await opened.aclose()


async def speak(synthesizer: EspeakSynthesizer, text: str, voice: str = "") -> bytes:
    pcm = b""
    async for chunk in synthesizer.synthesize(text, VoiceOptions(voice=voice)):
        assert chunk.rate_hz == RATE_HZ
        assert chunk.pcm
        assert len(chunk.pcm) % 2 == 0
        pcm += chunk.pcm
    return pcm


def seconds(pcm: bytes) -> float:
    return len(pcm) / 2 / RATE_HZ


@pytest.mark.parametrize(
    "text", ["Hello there, how are you?", "你好，今天天气很好。", "I like 北京 very much."]
)
async def test_a_sentence_has_a_sentences_length(synthesizer: EspeakSynthesizer, text: str) -> None:
    assert 1 < seconds(await speak(synthesizer, text)) < 5


class NotingLibrary(EspeakLibrary):
    """Notes what it is asked to say; its samples are the voice and the text."""

    def __init__(self) -> None:
        self.rate_hz = RATE_HZ
        self.asked: list[tuple[str, str]] = []

    def speak(self, text: str, voice: str, prosody: Prosody, on_samples: OnSamples) -> None:
        self.asked.append((voice, text))
        for char in f"{voice}:{text};":
            if not on_samples(char.encode("utf-16-le")):
                break


@pytest.mark.parametrize(
    ("voice", "latin", "han"),
    [
        ("", "en-us", "cmn"),
        ("auto", "en-us", "cmn"),
        ("en-gb", "en", "cmn"),
        ("cmn", "en-us", "cmn"),
        ("en-us+f3", "en-us+f3", "cmn+f3"),
    ],
)
async def test_each_run_is_spoken_by_the_voice_of_its_script(
    voice: str, latin: str, han: str
) -> None:
    library = NotingLibrary()
    synthesizer = EspeakSynthesizer(library, tuple(VOICES), 175)
    await speak(synthesizer, "I like 北京，2024年 very much.", voice)
    assert library.asked == [(latin, "I like "), (han, "北京，2024年 "), (latin, "very much.")]
    await synthesizer.aclose()


async def test_pieces_are_short_and_together_the_text() -> None:
    library = NotingLibrary()
    synthesizer = EspeakSynthesizer(library, tuple(VOICES), 175)
    text = "One sentence, with a clause. " * 30 + "x" * 500
    await speak(synthesizer, text)
    pieces = [piece for _, piece in library.asked]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= MAX_PIECE_CHARACTERS
    assert pieces[0].endswith((" ", ",", "."))
    await synthesizer.aclose()


async def test_sessions_get_their_own_speech() -> None:
    synthesizer = EspeakSynthesizer(NotingLibrary(), tuple(VOICES), 175)
    texts = [f"number {index} 你好" for index in range(20)]
    spoken = await asyncio.gather(*[speak(synthesizer, text) for text in texts])
    assert [pcm.decode("utf-16-le") for pcm in spoken] == [
        f"en-us:number {i} ;cmn:你好;" for i in range(20)
    ]
    await synthesizer.aclose()


async def test_every_voice_speaks_both_scripts(synthesizer: EspeakSynthesizer) -> None:
    assert synthesizer.voices[0] == "auto"
    for voice in synthesizer.voices:
        assert seconds(await speak(synthesizer, "go forward", voice)) > 0.3
        assert seconds(await speak(synthesizer, "你好", voice)) > 0.3


async def test_mixed_text_is_spoken_run_by_run(synthesizer: EspeakSynthesizer) -> None:
    mixed = seconds(await speak(synthesizer, "hello 你好"))
    parts = seconds(await speak(synthesizer, "hello ")) + seconds(await speak(synthesizer, "你好"))
    assert mixed == pytest.approx(parts, abs=0.01)


@pytest.mark.parametrize("text", ["", "   \n", "...", "—", "😀", "\x00\x01"])
async def test_nothing_speakable_gives_no_chunk(synthesizer: EspeakSynthesizer, text: str) -> None:
    assert await speak(synthesizer, text) == b""


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=80))
async def test_any_text_is_safe(text: str) -> None:
    synthesizer = open_synthesizer(rate_wpm=450)
    await speak(synthesizer, text)
    await synthesizer.aclose()


@pytest.mark.parametrize(
    "text", ["word " * 2000, "x" * 10_000, "字" * 3_000, "<speak>&amp;[[a]]\0" * 300]
)
async def test_long_text_is_spoken_in_short_pieces(
    synthesizer: EspeakSynthesizer, text: str
) -> None:
    speech = synthesizer.synthesize(text, VoiceOptions())
    assert (await anext(speech)).pcm
    await speech.aclose()


async def test_pieces_lose_no_word(synthesizer: EspeakSynthesizer) -> None:
    sentence = "one two three four five six seven eight nine ten. "
    text = sentence * (2 * MAX_PIECE_CHARACTERS // len(sentence))
    expected = seconds(await speak(synthesizer, sentence)) * (len(text) / len(sentence))
    assert seconds(await speak(synthesizer, text)) == pytest.approx(expected, rel=0.1)


def test_the_library_stops_at_the_chunk_it_is_told_to() -> None:
    chunks: list[bytes] = []

    def take_one(pcm: bytes) -> bool:
        chunks.append(pcm)
        return False

    open_library().speak("word " * 100, "en-us", Prosody(175), take_one)
    assert len(chunks) == 1


async def test_a_nul_does_not_end_the_text(synthesizer: EspeakSynthesizer) -> None:
    with_nul, with_space = [
        seconds(await speak(synthesizer, f"hello{char}world")) for char in "\0 "
    ]
    assert with_nul == pytest.approx(with_space, rel=0.05)


async def test_two_synthesizers_take_turns_with_the_one_library() -> None:
    texts = {
        "en-us": "one two three four five six",
        "cmn": "你好，今天天气很好",
        "en-gb+f3": "seven eight nine ten",
    }
    opened = [open_synthesizer(rate_wpm=rate_wpm) for rate_wpm in (100, 300)]
    alone = [
        seconds(await speak(one, text, voice)) for one in opened for voice, text in texts.items()
    ]
    together = await asyncio.gather(
        *[
            speak(one, text, voice)
            for _ in range(5)
            for one in opened
            for voice, text in texts.items()
        ]
    )
    assert [seconds(pcm) for pcm in together] == pytest.approx(alone * 5, rel=0.02)
    for one in opened:
        await one.aclose()


class EndlessLibrary(NotingLibrary):
    """Speaks until it is stopped; waits for ``gate`` before it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.stopped = 0

    def speak(self, text: str, voice: str, prosody: Prosody, on_samples: OnSamples) -> None:
        self.asked.append((voice, text))
        assert self.gate.wait(60)
        for _ in range(100_000):
            if not on_samples(b"\0\0"):
                self.stopped += 1
                break


async def test_cancelling_stops_the_thread_and_leaves_no_task() -> None:
    library = EndlessLibrary()
    library.gate.set()
    synthesizer = EspeakSynthesizer(library, tuple(VOICES), 175)
    before = asyncio.all_tasks()
    for _ in range(3):
        speech = synthesizer.synthesize("hello", VoiceOptions())
        await anext(speech)
        await speech.aclose()
    assert asyncio.all_tasks() == before
    await synthesizer.aclose()
    assert library.stopped == 3


async def test_what_was_cancelled_before_its_turn_is_never_spoken() -> None:
    library = EndlessLibrary()
    synthesizer = EspeakSynthesizer(library, tuple(VOICES), 175)
    tasks = [
        asyncio.get_running_loop().create_task(speak(synthesizer, text))
        for text in ("first", "second")
    ]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    library.gate.set()
    speech = synthesizer.synthesize("third", VoiceOptions())
    await anext(speech)
    await speech.aclose()
    await synthesizer.aclose()
    assert library.asked == [("en-us", "first"), ("en-us", "third")]


async def test_warming_up_makes_both_languages_ready(synthesizer: EspeakSynthesizer) -> None:
    await synthesizer.start()
    assert await speak(synthesizer, "hello")


async def test_closing_ends_the_thread_and_refuses_more() -> None:
    before = set(threading.enumerate())
    synthesizer = open_synthesizer()
    await speak(synthesizer, "hello")
    await synthesizer.aclose()
    assert set(threading.enumerate()) == before
    with pytest.raises(ProviderError):
        await speak(synthesizer, "hello")


async def test_an_unknown_voice_is_rejected(synthesizer: EspeakSynthesizer) -> None:
    with pytest.raises(ProviderError) as caught:
        await speak(synthesizer, "hello", "longnobody")
    assert caught.value.kind is FailureKind.REJECTED


async def test_the_rate_is_kept() -> None:
    fast, slow = open_synthesizer(rate_wpm=300), open_synthesizer(rate_wpm=100)
    assert len(await speak(fast, "one two three four")) < 0.6 * len(
        await speak(slow, "one two three four")
    )
    await fast.aclose()
    await slow.aclose()


def test_the_default_voice_is_configured() -> None:
    assert open_synthesizer(voice="cmn").voices[:2] == ("cmn", "auto")
    with pytest.raises(ConfigError, match="voice: 'klingon' is not one of auto, en-us"):
        open_synthesizer(voice="klingon")
