"""Text is told as the model gives it until the listener has enough to hear, and twenty
times a second from then on.
"""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from voicechat.runtime.delta_coalescer import COALESCE_S, MAX_DELTA_CHARACTERS, DeltaCoalescer
from voicechat.session.commands import Cancel, CommitTurn
from voicechat.session.notices import Done, ReplyText, ReplyTextFinished
from voicechat.session.types import ToolCall
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer
from voicechat.testing.virtual_time import VirtualTimeLoop

WORDS = ("Here ", "is ", "one. ", *(f"word{number} " for number in range(20)), "end.")


def told(played: ScriptedHarness) -> list[str]:
    return [notice.text for notice in played.of(ReplyText)]


def stage() -> ScriptedHarness:
    """A model that says a word each 10 ms, and a voice that needs much longer for
    each.
    """
    return ScriptedHarness(
        model=ScriptedModel(replies=(WORDS,), delta_ms=10), synthesizer=ScriptedSynthesizer()
    )


async def test_words_are_told_one_by_one_until_they_are_heard_and_then_together() -> None:
    async with stage() as played:
        played.send_audio(bytes(300 * 32))
        played.send(CommitTurn())
        await played.notice(ReplyTextFinished)
        pieces = told(played)
    assert "".join(pieces) == "".join(WORDS)
    assert pieces[:3] == list(WORDS[:3]), "the first sentence is told as it comes"
    together = [
        piece for piece in pieces[4:-1] if piece and piece.count("word") >= COALESCE_S * 100 - 1
    ]
    assert together == pieces[4:-1], "then those of 50 ms at once"


async def test_the_end_of_the_text_does_not_wait() -> None:
    async with stage() as played:
        played.send_audio(bytes(300 * 32))
        played.send(CommitTurn())
        await played.notice(ReplyTextFinished)
        finished_s = played.times_s(ReplyTextFinished)[0]
        last_text_s = played.times_s(ReplyText)[-1]
    assert finished_s - last_text_s < COALESCE_S / 2


async def test_what_was_said_comes_before_a_tool_call() -> None:
    said = ("Here ", "is ", "one. ", "And ", "two ", "more ")
    call = ToolCall(index=0, id="c", name="look", arguments="{}")
    model = ScriptedModel(replies=((*said, call),), delta_ms=10)
    async with ScriptedHarness(model=model, synthesizer=ScriptedSynthesizer()) as played:
        played.send_audio(bytes(300 * 32))
        played.send(CommitTurn())
        await played.notice(ReplyTextFinished)
        pieces = told(played)
    assert pieces == ["Here ", "is ", "one. ", "And two more "]


async def test_a_model_that_just_stops_has_everything_told() -> None:
    said = ("Here ", "is ", "one. ", "And ", "two ", "more ")
    model = ScriptedModel(
        replies=(said,), delta_ms=10, failure=Failure(after=len(said), stops=True)
    )
    async with ScriptedHarness(model=model, synthesizer=ScriptedSynthesizer()) as played:
        played.send_audio(bytes(300 * 32))
        played.send(CommitTurn())
        await played.notice(ReplyTextFinished)
        assert told(played)[-1] == "And two more "


async def test_nothing_is_told_after_an_interruption() -> None:
    async with stage() as played:
        played.send_audio(bytes(300 * 32))
        played.send(CommitTurn())
        await played.notice(ReplyText, 5)
        played.send(Cancel())
        await played.notice(Done)
        before = len(played.of(ReplyText))
        await asyncio.sleep(1)
        assert len(played.of(ReplyText)) == before


@given(
    st.lists(
        st.tuples(st.text(max_size=3 * MAX_DELTA_CHARACTERS), st.booleans(), st.floats(0, 0.2)),
        max_size=8,
    )
)
def test_no_character_is_lost_or_moved(said: list[tuple[str, bool, float]]) -> None:
    async def play() -> list[str]:
        pieces: list[str] = []
        way = DeltaCoalescer(pieces.append)
        for text, at_once, pause_s in said:
            await way.add_text(text, at_once=at_once)
            await asyncio.sleep(pause_s)
        way.flush()
        return pieces

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        pieces = runner.run(play())
    assert "".join(pieces) == "".join(text for text, _, _ in said)
    assert all(0 < len(piece) <= MAX_DELTA_CHARACTERS for piece in pieces)
