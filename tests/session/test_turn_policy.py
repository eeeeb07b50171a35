from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.session.turn_policy import AdaptiveSilence, usual_pause_ms
from voicechat.session.turn_words import (
    TextEnding,
    ending_of,
    is_backchannel,
    is_interruption_request,
    words_of_substance,
)


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("", TextEnding.PLAIN),
        ("the printer upstairs", TextEnding.PLAIN),
        ("I would like two tickets.", TextEnding.COMPLETE),
        ("where is it?", TextEnding.COMPLETE),
        ("for two people please", TextEnding.COMPLETE),
        ("what are you looking at", TextEnding.PLAIN),
        ("i am looking for", TextEnding.UNFINISHED),
        ("I want to fly to Paris and.", TextEnding.UNFINISHED),
        ("it does not work because", TextEnding.UNFINISHED),
        ("could you tell me um", TextEnding.UNFINISHED),
        ("on the one hand,", TextEnding.UNFINISHED),
        ("i was thinking...", TextEnding.UNFINISHED),
        ("my number is zero two zero", TextEnding.DICTATING),
        ("it is 0 2 0.", TextEnding.DICTATING),
        ("code 4711", TextEnding.DICTATING),
        ("i have two", TextEnding.PLAIN),
        ("我想订一张票", TextEnding.PLAIN),
        ("你能帮我看看吗", TextEnding.COMPLETE),
        ("明天出发。", TextEnding.COMPLETE),
        ("我想去北京然后", TextEnding.UNFINISHED),
        ("请问那个", TextEnding.UNFINISHED),
        ("这个坏了，", TextEnding.UNFINISHED),
        ("我的电话是一三八", TextEnding.DICTATING),
        ("我要三个", TextEnding.PLAIN),
    ],
)
def test_how_a_text_ends(text: str, ending: TextEnding) -> None:
    assert ending_of(text) is ending


@pytest.mark.parametrize(
    "text",
    [
        "mm-hmm",
        "you",
        "it you",
        "oh",
        "Right.",
        "yeah, yeah",
        "I see",
        "嗯",
        "好的。",
        "对，对",
        "嗯 right",
    ],
)
def test_signs_of_listening(text: str) -> None:
    assert is_backchannel(text)
    assert words_of_substance(text) == 0


@pytest.mark.parametrize(
    ("text", "words"), [("right but when", 2), ("对但是几点开门", 7), ("no", 1), ("我", 1), ("", 0)]
)
def test_words_of_substance(text: str, words: int) -> None:
    assert not is_backchannel(text)
    assert words_of_substance(text) == words


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("wait", True),
        ("Stop!", True),
        ("停", True),
        ("等一下", True),
        ("好的", False),
        ("await", False),
    ],
)
def test_words_that_ask_for_the_floor(text: str, asks: bool) -> None:
    assert is_interruption_request(text) is asks


@given(st.text(max_size=60))
def test_any_text_is_classified(text: str) -> None:
    ending_of(text)
    assert is_interruption_request(text) in (True, False)
    assert not (is_backchannel(text) and words_of_substance(text))


def test_a_finished_sentence_shortens_and_an_open_one_lengthens() -> None:
    policy = AdaptiveSilence(silence_ms=500)
    delays_ms = [
        policy.end_delay_ms(text, ())
        for text in ("see you tomorrow.", "the printer", "my number is 123", "so")
    ]
    assert delays_ms == [300, 500, 1_300, 1_500]


def test_a_speaker_who_pauses_long_is_given_longer() -> None:
    policy = AdaptiveSilence()
    assert policy.end_delay_ms("the printer", (800, 800)) == 1_000
    assert policy.end_delay_ms("see you tomorrow.", (800, 800)) == 600
    assert policy.end_delay_ms("the printer", (100,)) == 500


def test_the_newest_pauses_count_most() -> None:
    assert usual_pause_ms(()) == 0
    assert usual_pause_ms((400,)) == 400
    assert usual_pause_ms((400, 800, 400, 800)) > usual_pause_ms((400, 800, 800, 400))


@pytest.mark.parametrize(
    ("text", "delays_ms"),
    [
        # Words and model agree, or the longer delay counts.
        ("see you tomorrow.", [1_500, 900, 300]),
        ("my number is 123", [1_500, 1_300, 1_300]),
        ("the printer and", [1_500, 1_500, 1_500]),
        # The words say nothing: the model decides.
        ("the printer", [1_500, 900, 300]),
        ("", [1_500, 900, 300]),
    ],
)
def test_words_and_a_learned_model_decide_together(text: str, delays_ms: list[int]) -> None:
    policy = AdaptiveSilence()
    assert [policy.end_delay_ms(text, (), each) for each in (0.0, 0.5, 1.0)] == delays_ms


@given(st.text(max_size=30), st.lists(st.integers(0, 2_000), max_size=3), st.floats(0, 1))
def test_a_model_never_shortens_what_the_words_keep_open(
    text: str, pauses_ms: Sequence[int], completion: float
) -> None:
    policy = AdaptiveSilence()
    delay_ms = policy.end_delay_ms(text, pauses_ms, completion)
    assert delay_ms >= policy.end_delay_ms(text, pauses_ms, 1.0)
    if ending_of(text) is not TextEnding.PLAIN:
        assert delay_ms >= policy.end_delay_ms(text, pauses_ms)


@given(st.text(max_size=30), st.lists(st.integers(0, 100_000)), st.none() | st.floats(-1, 2))
def test_every_delay_is_bounded(
    text: str, pauses_ms: Sequence[int], completion: float | None
) -> None:
    policy = AdaptiveSilence()
    shortest_ms = policy.complete * policy.silence_ms
    assert shortest_ms <= policy.end_delay_ms(text, pauses_ms, completion) <= policy.most_ms


@pytest.mark.parametrize("silence_ms", [100, 300, 500, 1_000, 3_000, 5_000])
def test_a_client_gets_the_silence_it_asks_for(silence_ms: int) -> None:
    policy = AdaptiveSilence(silence_ms=silence_ms)
    assert policy.end_delay_ms("the printer", ()) == silence_ms
    assert policy.end_delay_ms("see you tomorrow.", ()) == 0.6 * silence_ms
    assert silence_ms < policy.end_delay_ms("the printer and", ()) <= 3 * silence_ms
    assert policy.end_delay_ms("the printer", (100_000,)) <= 3.6 * silence_ms


def test_words_and_habit_add_a_bounded_time() -> None:
    policy = AdaptiveSilence(silence_ms=5_000)
    assert policy.end_delay_ms("the printer and", (100_000,)) == 6_300
