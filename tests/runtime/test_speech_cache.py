"""What is said often is synthesised twice, and what is kept of it stays within its
bound.
"""

from contextlib import aclosing
from typing import Any, cast

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import AudioChunk, VoiceOptions
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.speech_cache import MAX_CHARACTERS, SEEN_ONCE, CachingSynthesizer
from voicechat.session.commands import CommitTurn
from voicechat.session.notices import ReplyAudio, TurnCompleted
from voicechat.session.types import Settings
from voicechat.testing.harness import ConversationHarness
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer

BYTES_PER_CHARACTER = 50 * 32
ROOM_FOR_THREE = 3 * 10 * BYTES_PER_CHARACTER


async def said(cache: CachingSynthesizer, text: str, voice: str = "") -> list[AudioChunk]:
    return [chunk async for chunk in cache.synthesize(text, VoiceOptions(voice=voice))]


async def test_what_was_said_twice_is_known_and_sounds_the_same() -> None:
    synthesizer = ScriptedSynthesizer()
    cache = CachingSynthesizer(synthesizer, ROOM_FOR_THREE)
    first, second, third = [await said(cache, "ten letter") for _ in range(3)]
    assert first == second == third
    assert len(first) > 1
    assert synthesizer.texts == ["ten letter"] * 2
    assert (cache.hits, cache.misses, cache.held_bytes) == (1, 2, 10 * BYTES_PER_CHARACTER)


async def test_what_was_said_once_is_not_kept() -> None:
    cache = CachingSynthesizer(ScriptedSynthesizer(), ROOM_FOR_THREE)
    for number in range(20):
        await said(cache, f"sentence {number}")
    assert (cache.held_bytes, cache.hits) == (0, 0)


async def test_another_voice_is_another_speech() -> None:
    synthesizer = ScriptedSynthesizer()
    cache = CachingSynthesizer(synthesizer, ROOM_FOR_THREE)
    for voice in ("a", "b", "a", "b"):
        await said(cache, "ten letter", voice)
    assert len(synthesizer.texts) == 4
    await said(cache, "ten letter", "a")
    assert len(synthesizer.texts) == 4


async def test_the_one_not_used_for_longest_makes_room() -> None:
    synthesizer = ScriptedSynthesizer()
    cache = CachingSynthesizer(synthesizer, ROOM_FOR_THREE)
    texts = [f"ten char {letter}" for letter in "abcd"]
    for text in texts[:3]:
        await said(cache, text)
        await said(cache, text)
    await said(cache, texts[0])  # used again: now b is the oldest
    await said(cache, texts[3])
    await said(cache, texts[3])
    assert cache.held_bytes == ROOM_FOR_THREE
    asked = len(synthesizer.texts)
    for text in (texts[0], texts[2], texts[3]):
        await said(cache, text)
    assert len(synthesizer.texts) == asked
    await said(cache, texts[1])
    assert len(synthesizer.texts) == asked + 1


async def test_long_texts_and_those_that_would_fill_everything_pass_through() -> None:
    synthesizer = ScriptedSynthesizer(ms_per_character=1)
    cache = CachingSynthesizer(synthesizer, 1_000)
    for text in ("x" * (MAX_CHARACTERS + 1), "y" * MAX_CHARACTERS):
        for _ in range(3):
            assert await said(cache, text)
    assert len(synthesizer.texts) == 6
    assert cache.held_bytes == 0


async def test_neither_failures_nor_halves_nor_silence_are_kept() -> None:
    synthesizer = ScriptedSynthesizer(
        failure=Failure(after=2, kind=FailureKind.BROKEN, calls=2), silent="...".__eq__
    )
    cache = CachingSynthesizer(synthesizer, ROOM_FOR_THREE)
    for _ in range(2):
        with pytest.raises(ProviderError):
            await said(cache, "ten letter")
    async with aclosing(cast(Any, cache.synthesize("ten letter", VoiceOptions()))) as chunks:
        await anext(chunks)
    assert synthesizer.open == 0
    for _ in range(3):
        assert await said(cache, "...") == []
    assert synthesizer.texts.count("...") == 3
    assert cache.held_bytes == 0
    await said(cache, "ten letter")
    assert cache.held_bytes == 10 * BYTES_PER_CHARACTER


async def test_what_is_remembered_of_texts_is_bounded() -> None:
    cache = CachingSynthesizer(ScriptedSynthesizer(ms_per_character=1), ROOM_FOR_THREE)
    for number in range(SEEN_ONCE + 1):
        await said(cache, f"{number}")
    assert len(cache._seen) == SEEN_ONCE
    await said(cache, "0")  # forgotten: this is its first time again
    await said(cache, str(SEEN_ONCE))
    assert cache.held_bytes == len(str(SEEN_ONCE)) * 32


async def test_it_is_started_and_closed_with_what_it_speaks_for() -> None:
    class Living(ScriptedSynthesizer):
        lived: tuple[str, ...] = ()

        async def start(self) -> None:
            self.lived += ("started",)

        async def aclose(self) -> None:
            self.lived += ("closed",)

        async def probe(self) -> None:
            self.lived += ("probed",)

        def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
            return speech_rate == 2

        @property
        def waiting_streams(self) -> int:
            return 3

    living = Living()
    cache = CachingSynthesizer(living, ROOM_FOR_THREE)
    await cache.start()
    await said(cache, "ten letter")
    await said(cache, "ten letter")
    assert cache.has_probe
    await cache.probe()
    assert cache.waiting_streams == 3, "admission control must see who waits behind the cache"
    assert ChainLink("tts.default", cache).waiting_streams == 3
    await cache.aclose()
    assert living.lived == ("started", "probed", "closed")
    assert cache.held_bytes == 0
    assert cache.voices == living.voices
    assert (cache.shapes_prosody(2, 1), cache.shapes_prosody(1, 2)) == (True, False)
    plain = CachingSynthesizer(ScriptedSynthesizer(), 1)
    await plain.start()
    await plain.aclose()
    assert not plain.shapes_prosody(2, 1)
    assert not plain.has_probe
    assert plain.waiting_streams == 0


async def test_a_conversation_hears_the_same_from_memory() -> None:
    """Third turn: no synthesis, and yet the same audio, pacing included."""
    synthesizer = ScriptedSynthesizer(first_ms=300, ms_per_character=100)
    harness = ConversationHarness(
        model=ScriptedModel([["Good morning. "]]),
        synthesizer=CachingSynthesizer(synthesizer, 10_000_000),
        settings=Settings(lead_ms=500),
    )
    turns: list[list[tuple[bytes, float]]] = []
    async with harness:
        for number in range(1, 4):
            begun = len(harness.of(ReplyAudio))
            harness.send(CommitTurn("hello"))
            await harness.notice(TurnCompleted, number)
            times_s = harness.times_s(ReplyAudio)[begun:]
            pieces = harness.of(ReplyAudio)[begun:]
            turns.append(
                [
                    (piece.payload, round(at_s - times_s[0], 2))
                    for piece, at_s in zip(pieces, times_s, strict=True)
                ]
            )
    assert len(synthesizer.texts) == 2
    assert turns[0] == turns[1] == turns[2]
    assert turns[2][-1][1] > 0.5  # paced, though all of it was there at once
