"""Knowledge in whole conversations, on a virtual clock."""

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.runtime.consulting.found import BREAKFAST, RECORD, DirectedSearch
from voicechat.knowledge.interface import Findings
from voicechat.session.commands import CommitTurn
from voicechat.session.notices import (
    Recognised,
    ReplyEnded,
    ReplySources,
    ReplyText,
    TurnCommitted,
    TurnCompleted,
)
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer

WORDS = "when is breakfast served on sundays"
SPOKEN_MS = 300 * len(WORDS.split())


@dataclass(kw_only=True)
class KnowingHarness(ScriptedHarness):
    """A harness whose agent knows the handbook."""

    search: DirectedSearch = field(default_factory=DirectedSearch)
    recognizer: ScriptedRecognizer = field(
        default_factory=lambda: ScriptedRecognizer(texts=(WORDS,), final_ms=100)
    )
    model: ScriptedModel = field(
        default_factory=lambda: ScriptedModel(replies=[["From seven ", "[", "1]. Until ten【1】."]])
    )


async def _speak(stage: KnowingHarness) -> None:
    """Speak all words in real time, then end the turn."""
    for _ in range(SPOKEN_MS // 100):
        stage.send_audio(bytes(3200))
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    stage.send(CommitTurn())
    await stage.notice(TurnCompleted)


async def test_the_search_begins_before_the_user_has_finished_and_adds_no_time() -> None:
    async with KnowingHarness(search=DirectedSearch(takes_s=0.12)) as stage:
        await _speak(stage)
        [ended_s] = stage.times_s(TurnCommitted)
        known_s = stage.times_s(Recognised)[-1]
    assert stage.search.questions[-1] == WORDS
    assert len(stage.search.asked) >= 2
    assert all(at_s < ended_s for _, at_s in stage.search.asked)
    [request] = stage.model.requests
    assert "> Breakfast is served" in str(request.messages[0]["content"])
    # Text comes as soon as the last words are known.
    assert stage.times_s(ReplyText)[0] == pytest.approx(known_s, abs=0.002)


async def test_marks_are_neither_shown_nor_spoken_nor_remembered() -> None:
    async with KnowingHarness() as stage:
        await _speak(stage)
        [ended] = stage.of(ReplyEnded)
    text = "From seven. Until ten."
    assert "".join(told.text for told in stage.of(ReplyText)) == text
    assert stage.synthesizer.texts == ["From seven.", "Until ten."]
    assert [item.message["content"] for item in ended.items] == [text]
    assert [[source.index for source in told.sources] for told in stage.of(ReplySources)] == [
        [1],
        [1],
    ]


async def test_a_source_comes_where_it_is_cited() -> None:
    async with KnowingHarness() as stage:
        await _speak(stage)
    said = ""
    for notice in stage.notices:
        if isinstance(notice, ReplyText):
            said += notice.text
        if isinstance(notice, ReplySources):
            break
    assert said == "From seven"


async def test_the_material_is_read_for_one_reply_only() -> None:
    async with KnowingHarness() as stage:
        await _speak(stage)
        stage.search.findings = Findings()
        stage.send(CommitTurn("And dogs?"))
        await stage.notice(TurnCompleted, 2)
    read = [message["content"] for message in stage.model.requests[1].messages]
    assert read == [WORDS, "From seven. Until ten.", "And dogs?"]


async def test_a_typed_question_is_searched_for_as_well() -> None:
    async with KnowingHarness() as stage:
        stage.send(CommitTurn("When is breakfast?"))
        await stage.notice(TurnCompleted)
    assert stage.search.questions == ["When is breakfast?"]
    assert len(stage.model.requests[0].messages) == 2


@pytest.mark.parametrize(
    "search", [DirectedSearch(takes_s=1e6), DirectedSearch(failure=RuntimeError("broken"))]
)
async def test_the_answer_goes_on_without_a_search_that_hangs_or_fails(
    search: DirectedSearch,
) -> None:
    async with KnowingHarness(search=search) as stage:
        stage.send(CommitTurn("When is breakfast?"))
        await stage.notice(TurnCompleted)
    assert stage.model.requests[0].messages == ({"role": "user", "content": "When is breakfast?"},)
    assert stage.synthesizer.texts
    assert not stage.search.running, "nothing of it outlives the conversation"


async def test_a_fixed_answer_is_spoken_with_its_source_and_no_model_is_asked() -> None:
    search = DirectedSearch(Findings((BREAKFAST,), RECORD))
    async with KnowingHarness(search=search) as stage:
        stage.send(CommitTurn("Who are you?"))
        await stage.notice(TurnCompleted)
        [told] = stage.of(ReplySources)
    assert stage.synthesizer.texts == ["Anna."]
    assert (told.sources[0].kind, told.sources[0].title) == ("qa", "Who are you?")
    assert not stage.model.requests
