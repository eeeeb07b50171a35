import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers.humming import silence, voice
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.utterances import (
    EARLY_PASSES,
    SLOWING,
    Recognized,
    Schedule,
    recognize_utterances,
)
from voicechat.session.types import Transcript, Word
from voicechat.testing.virtual_time import VirtualTimeLoop

PIECE_BYTES = 3200


async def microphone(pcm: bytes) -> AsyncIterator[bytes]:
    """Audio as it is spoken."""
    for start in range(0, len(pcm), PIECE_BYTES):
        await asyncio.sleep(0.1)
        yield pcm[start : start + PIECE_BYTES]


async def file(pcm: bytes) -> AsyncIterator[bytes]:
    """Audio that is there at once."""
    yield pcm


class Decoder:
    """Understands a word in every 200 ms; counts what it is asked."""

    def __init__(self, takes_ms: int = 0) -> None:
        self.takes_ms = takes_ms
        self.passes: list[tuple[int, bool]] = []
        self.at_once = self.most_at_once = self.cancelled = 0
        self.failures: dict[int, ProviderError] = {}
        self.mute_finals = False

    async def __call__(self, pcm: bytes, final: bool) -> Recognized:
        number, length_ms = len(self.passes), len(pcm) // 32
        self.passes.append((length_ms, final))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.takes_ms / 1000)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        if number in self.failures:
            raise self.failures[number]
        if final and self.mute_finals:
            return Recognized(())
        return Recognized(
            [Word(f"w{at}", at, at + 200) for at in range(0, length_ms - 199, 200)], "en"
        )

    @property
    def partial_ms(self) -> list[int]:
        return [length_ms for length_ms, final in self.passes if not final]


async def transcribe(
    audio: AsyncIterator[bytes], decode: Decoder, **schedule: int
) -> list[Transcript]:
    return [result async for result in recognize_utterances(audio, decode, Schedule(**schedule))]


DICTATION = silence(600) + voice(3000) + silence(1200) + voice(800) + silence(300)


async def test_partial_results_grow_and_a_pause_makes_them_final() -> None:
    decode = Decoder()
    results = await transcribe(microphone(DICTATION), decode)
    first_final, last_final = [result for result in results if result.final]
    partials = results[: results.index(first_final)]
    assert len(partials) >= 2
    assert all(after.text.startswith(before.text + " ") for before, after in pairwise(partials))
    assert first_final.text.startswith(partials[-1].text)
    assert last_final is results[-1]
    assert not any(word.fixed for partial in partials for word in partial.words)
    for final in (first_final, last_final):
        assert all(word.fixed for word in final.words)
        assert final.begin_ms == final.words[0].begin_ms
        assert final.end_ms == final.words[-1].end_ms
    assert 300 <= first_final.begin_ms <= 400
    assert first_final.end_ms is not None
    assert first_final.end_ms <= last_final.begin_ms
    assert 4200 <= last_final.begin_ms <= 4800


async def test_a_partial_result_lacks_what_the_last_pass_alone_has_heard() -> None:
    decode = Decoder()
    async with aclosing(recognize_utterances(microphone(voice(4000)), decode)) as results:
        first = await anext(results)
    before_ms, now_ms = decode.partial_ms
    assert len(first.words) == before_ms // 200 < now_ms // 200


async def test_silence_asks_nobody() -> None:
    decode = Decoder()
    assert await transcribe(microphone(silence(5000)), decode) == []
    assert decode.passes == []


async def test_one_pass_at_a_time_and_no_more_than_the_new_audio_calls_for() -> None:
    decode = Decoder(takes_ms=1500)
    await transcribe(microphone(voice(20_000)), decode)
    assert decode.most_at_once == 1
    assert all(
        after - before >= max(1000, before // SLOWING)
        for before, after in pairwise(decode.partial_ms)
    )


async def test_partial_passes_together_hear_no_more_than_nine_times_the_audio() -> None:
    decode = Decoder()
    await transcribe(
        microphone(voice(60_000)), decode, max_utterance_ms=60_000, partial_every_ms=200
    )
    assert len(decode.partial_ms) > 20
    assert sum(decode.partial_ms) <= (SLOWING + 1) * 60_000


async def test_the_pause_cancels_the_pass_that_is_under_way() -> None:
    decode = Decoder(takes_ms=10_000)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    audio = voice(2000) + silence(5000)
    async with aclosing(recognize_utterances(microphone(audio), decode)) as results:
        final = await anext(results)
    assert decode.cancelled == 1
    assert final.final
    # 2 s of speech, the short silence after which the utterance may be complete, and the
    # pass that becomes the final one; it did not wait for the cancelled one.
    assert loop.time() - began_s == pytest.approx(2.0 + 0.35 + 10.0, abs=0.15)


async def test_the_final_result_is_there_when_the_pause_is_long_enough() -> None:
    decode = Decoder(takes_ms=300)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with aclosing(
        recognize_utterances(microphone(voice(2000) + silence(5000)), decode)
    ) as results:
        async for result in results:
            if result.final:
                break
    assert [length_ms for length_ms, complete in decode.passes if complete] == pytest.approx(
        [2000], abs=400
    )
    assert loop.time() - began_s == pytest.approx(
        2.0 + 0.75, abs=0.15
    )  # nothing was added to the pause


async def test_a_pass_that_may_be_the_last_goes_on_over_the_end_of_the_pause() -> None:
    decode = Decoder(takes_ms=1500)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with aclosing(
        recognize_utterances(microphone(voice(600) + silence(5000)), decode)
    ) as results:
        assert (await anext(results)).final
    assert [complete for _, complete in decode.passes] == [True]
    assert decode.cancelled == 0
    assert loop.time() - began_s == pytest.approx(0.6 + 0.3 + 1.5, abs=0.2)


@pytest.mark.parametrize("more", [voice(900), voice(20)], ids=["speech", "a click"])
async def test_who_goes_on_after_a_hesitation_is_heard_to_the_end(more: bytes) -> None:
    decode = Decoder()
    results = await transcribe(microphone(voice(900) + silence(400) + more + silence(2000)), decode)
    (final,) = [result for result in results if result.final]
    assert len([complete for _, complete in decode.passes if complete]) == 2
    assert final.words[-1].end_ms >= 1300


async def test_a_pass_that_can_no_longer_be_the_last_is_cancelled_at_the_end() -> None:
    decode = Decoder(takes_ms=10_000)
    audio = microphone(voice(600) + silence(400) + voice(600) + silence(2000))
    async with aclosing(recognize_utterances(audio, decode)) as results:
        assert (await anext(results)).final
    assert [complete for _, complete in decode.passes] == [True, True]
    assert decode.cancelled == 1


async def test_an_early_pass_that_is_refused_leaves_no_older_one_in_its_place() -> None:
    decode = Decoder()
    decode.failures[1] = ProviderError("test", FailureKind.RATE_LIMIT, "as the script says")
    audio = microphone(voice(600) + silence(450) + voice(600) + silence(2000))
    *shown, final = await transcribe(audio, decode, partial_every_ms=10_000)
    assert [result.final for result in shown] == [False], "of the first early pass"
    assert [complete for _, complete in decode.passes] == [True, True, True]
    assert final.words[-1].end_ms >= 1600


async def test_who_hesitates_again_and_again_is_waited_for() -> None:
    decode = Decoder()
    await transcribe(microphone((voice(300) + silence(450)) * 12), decode, partial_every_ms=10_000)
    assert [complete for _, complete in decode.passes] == [True] * (EARLY_PASSES + 1)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(20, 2500), st.sampled_from([100, 260, 400, 650, 1200])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 300, 1500]),
    st.sampled_from([3000, 28_000]),
)
def test_nothing_is_lost_by_not_waiting(
    parts: list[tuple[int, int]], takes_ms: int, max_utterance_ms: int
) -> None:
    audio = b"".join(voice(voiced_ms) + silence(silent_ms) for voiced_ms, silent_ms in parts)

    def finals(partial_every_ms: int) -> list[Transcript]:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            results = runner.run(
                transcribe(
                    microphone(audio),
                    Decoder(takes_ms),
                    partial_every_ms=partial_every_ms,
                    max_utterance_ms=max_utterance_ms,
                )
            )
        return [result for result in results if result.final]

    waited, early = finals(0), finals(1000)
    assert len(waited) == len(early)
    for whole, found in zip(waited, early, strict=True):
        assert found.words == whole.words[: len(found.words)]
        # What is left out is the silence of the pause, and what voice detection takes
        # for voice of it.
        assert len(whole.words) - len(found.words) <= (700 + 200) // 200


async def test_partial_results_can_be_left_out() -> None:
    decode = Decoder()
    results = await transcribe(microphone(DICTATION), decode, partial_every_ms=0)
    assert [result.final for result in results] == [True, True]
    assert decode.partial_ms == []


async def test_a_file_is_recognised_utterance_by_utterance() -> None:
    decode = Decoder(takes_ms=500)
    results = await transcribe(file((voice(1000) + silence(1000)) * 10), decode)
    assert [result.final for result in results] == [True] * 10
    assert decode.most_at_once == 1


async def test_what_comes_faster_than_it_is_spoken_is_sent_once() -> None:
    async def hurried() -> AsyncIterator[bytes]:
        async for piece in file(voice(8000) + silence(1000)):
            for start in range(0, len(piece), PIECE_BYTES):
                await asyncio.sleep(0.005)
                yield piece[start : start + PIECE_BYTES]

    decode = Decoder()
    (final,) = await transcribe(hurried(), decode)
    assert final.final
    assert decode.partial_ms == []


async def test_audio_waits_when_recognition_cannot_follow() -> None:
    read_bytes = 0

    async def long_file() -> AsyncIterator[bytes]:
        nonlocal read_bytes
        for _ in range(100):
            read_bytes += len(UTTERANCE)
            yield UTTERANCE

    decode = Decoder(takes_ms=1000)
    async with aclosing(recognize_utterances(long_file(), decode)) as results:
        await anext(results)
        assert read_bytes <= 5 * len(UTTERANCE)
        for _ in range(50):
            await anext(results)
        assert read_bytes <= 56 * len(UTTERANCE)


UTTERANCE = voice(1000) + silence(1000)


async def test_nobody_waits_for_a_long_file_to_be_listened_to() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.get_running_loop().create_task(count())
    await transcribe(file(silence(60_000)), Decoder())
    counting.cancel()
    assert turns >= 60_000 / 200


async def test_an_utterance_that_was_shown_is_closed_even_if_nothing_is_left_of_it() -> None:
    decode = Decoder()
    decode.mute_finals = True
    results = await transcribe(microphone(voice(4000)), decode)
    assert results[-1].final
    assert results[-1].text == results[-2].text
    assert all(word.fixed for word in results[-1].words)


async def test_what_is_not_understood_gives_nothing() -> None:
    decode = Decoder()
    decode.mute_finals = True
    assert await transcribe(file(voice(1000)), decode) == []
    assert len(decode.passes) == 1


@pytest.mark.parametrize("kind", [FailureKind.CONNECTIVITY, FailureKind.REJECTED])
async def test_a_failing_pass_fails_the_stream(kind: FailureKind) -> None:
    decode = Decoder()
    decode.failures[1] = ProviderError("test", kind, "as the script says")
    with pytest.raises(ProviderError) as caught:
        await transcribe(microphone(voice(4000)), decode)
    assert caught.value is decode.failures[1]


async def test_a_partial_pass_over_the_rate_limit_is_tried_again_later_and_later() -> None:
    decode = Decoder()
    refused = ProviderError("test", FailureKind.RATE_LIMIT, "as the script says")
    decode.failures = {1: refused, 2: refused}
    results = await transcribe(microphone(voice(12_000)), decode)
    assert results[-1].final
    assert len(results) >= 2
    gaps = [after - before for before, after in pairwise(decode.partial_ms)]
    assert gaps[0] == pytest.approx(1000, abs=100)
    assert gaps[3] >= 4000


async def test_the_rate_limit_counts_for_the_whole_utterance() -> None:
    decode = Decoder()
    decode.failures[0] = ProviderError("test", FailureKind.RATE_LIMIT, "as the script says")
    with pytest.raises(ProviderError):
        await transcribe(file(voice(1000)), decode)


async def test_what_the_audio_raises_passes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in microphone(voice(3000)):
            yield piece
        raise KeyError("as the script says")

    decode = Decoder(takes_ms=700)
    with pytest.raises(KeyError):
        await transcribe(broken(), decode)
    assert decode.at_once == 0


@pytest.mark.parametrize("after_s", [0.5, 1.7, 2.1, 3.5])
async def test_cancelling_leaves_nothing_behind(after_s: float) -> None:
    decode = Decoder(takes_ms=400)

    async def read() -> None:
        await transcribe(microphone(voice(2000) + silence(2000)), decode)

    reading = asyncio.get_running_loop().create_task(read())
    await asyncio.sleep(after_s)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert decode.at_once == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_words_are_shown_as_soon_as_the_speaker_may_have_finished() -> None:
    decode = Decoder(takes_ms=100)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    shown: list[tuple[float, str]] = []
    async for result in recognize_utterances(microphone(voice(800) + silence(3000)), decode):
        shown.append((loop.time() - began_s, result.text))
        if result.final:
            break
    (partial_s, partial), (final_s, final) = shown
    assert partial == final
    # After a short silence and one pass; the pause is 700 ms long.
    assert partial_s < 0.8 + 0.2 + 0.1 + 0.3 < final_s


async def test_what_each_pass_recognised_can_be_had_before_it_is_agreed_on() -> None:
    decode = Decoder(takes_ms=100)
    audio = microphone(voice(3000) + silence(3000))
    results = [result async for result in recognize_utterances(audio, decode, hypotheses=True)]
    *partials, final = results
    assert final.final
    assert not final.hypothesis
    assert all(result.hypothesis.startswith(result.text) for result in partials)
    assert partials[0].text == "", "only one pass has heard anything"
    assert len(partials[0].hypothesis) > 0
    during = [result for result in partials if not result.settled]
    (early,) = [result for result in partials if result.settled]
    assert len(during) == len(decode.partial_ms)
    assert early is partials[-1]
    assert early.hypothesis == early.text == final.text


async def test_first_words_may_be_wanted_soon() -> None:
    decode = Decoder()
    await transcribe(microphone(voice(5000)), decode, first_partial_ms=400)
    quick = decode.partial_ms
    assert quick[0] == pytest.approx(400, abs=100)
    # Then more and more seldom, until they come every second.
    gaps = [after - before for before, after in pairwise(quick)]
    assert gaps[:3] == pytest.approx([200, 300, 450], abs=100)
    assert gaps[-1] == pytest.approx(1_000, abs=100)
    decode = Decoder()
    await transcribe(microphone(voice(3000)), decode, first_partial_ms=400, partial_every_ms=0)
    assert decode.partial_ms == []


async def test_a_partial_pass_gives_way_when_the_utterance_may_be_complete() -> None:
    decode = Decoder(takes_ms=900)
    results = await transcribe(microphone(voice(1400) + silence(1500)), decode)
    # The pass over the first second, under way when the speaker fell silent, was given up.
    assert decode.cancelled == 1
    assert [final for _, final in decode.passes] == [False, True]
    assert [(result.final, result.language) for result in results] == [(True, "en")]


async def test_closing_leaves_nothing_behind() -> None:
    decode = Decoder()
    results = recognize_utterances(microphone(voice(5000)), decode)
    await anext(results)
    await results.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_times_stay_within_the_utterance() -> None:
    async def wild(pcm: bytes, final: bool) -> Recognized:
        return Recognized((Word("one", -500, 90_000), Word("two", 0, 10)))

    (final,) = [r async for r in recognize_utterances(file(silence(1000) + voice(1000)), wild)]
    assert final.begin_ms >= 500
    assert [(w.begin_ms, w.end_ms) for w in final.words] == [(final.begin_ms, 2000), (2000, 2000)]
