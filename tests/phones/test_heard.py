"""What a caller has heard of a reply that he cut short, against what the far end has
played.
"""

import asyncio
import json
import random
from typing import Any

import pytest

from tests.phones.far_end import BYTES_PER_MS, FarEnd
from voicechat.dialects.base import Connection
from voicechat.dialects.media_streams.endpoint import MediaStreamsEndpoint
from voicechat.session.agent import Agent, Keypad
from voicechat.session.fallback_message import FallbackMessage
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.queued_fakes import SilentDetector
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer

SENTENCES = (
    "The first train to the coast leaves at seven in the morning. ",
    "It stops at every village on the way, and takes two hours. ",
    "A faster one leaves at half past nine, but you have to change. ",
    "There is also a bus, which many people like more than the train. ",
)
MS_PER_CHARACTER = 60
DELAYS_S = [0.02 * 20 ** (number / 9) for number in range(10)]
"""Of the network one way: 20 to 400 ms."""
AGENT = Agent(keypad=Keypad(most=1))


def call(far_end: FarEnd) -> ScriptedHarness:
    opening = MediaStreamsEndpoint("twilio").open(Connection(agent=AGENT))
    return ScriptedHarness(
        dialect=opening.dialect,
        settings=opening.settings,
        agent=AGENT,
        socket=far_end,
        detector=SilentDetector(),
        model=ScriptedModel((SENTENCES,)),
        synthesizer=ScriptedSynthesizer(ms_per_character=MS_PER_CHARACTER),
    )


def words_heard(position_ms: float) -> tuple[int, int]:
    """How many words have been played whole at that position of the reply, and how many
    at least in part.
    """
    whole = begun = 0
    for sentence in map(str.strip, SENTENCES):
        characters = int(max(0, position_ms) / MS_PER_CHARACTER)
        played, rest = sentence[:characters], sentence[characters:]
        begun += len(played.split())
        whole += len(played.split()) - (bool(rest) and not rest.startswith(" ") and bool(played))
        # Half a packet of silence on average ends a sentence.
        position_ms -= len(sentence) * MS_PER_CHARACTER + 10
    return whole, begun


def answers(model: ScriptedModel) -> list[int]:
    """How many words the history has of each reply that was cut."""
    messages: Any = model.requests[-1].messages
    return [len(m["content"].split()) for m in messages if m["role"] == "assistant"]


@pytest.mark.parametrize(
    ("delays_s", "interruptions"),
    [(DELAYS_S[4:5], 3), pytest.param(DELAYS_S, 20, marks=pytest.mark.long)],
    ids=["one", "all"],
)
async def test_heard_text_is_right_to_a_word_on_any_network(
    delays_s: list[float], interruptions: int
) -> None:
    chance = random.Random(16)
    off: list[int] = []
    for delay_s in delays_s:
        # A message may take up to a fifth more.
        far_end = FarEnd(delay_s=delay_s, jitter_s=delay_s / 5, seed=16)
        stage = call(far_end)
        async with stage:
            far_end.begin()
            far_end.press("1")
            for cut in range(interruptions):
                # The key takes a trip to the server, and the reply one back.
                await asyncio.sleep(3 * delay_s + chance.uniform(0.3, 12.0))
                far_end.press("1")
                await asyncio.sleep(3 * delay_s)
                assert len(far_end.heard) == cut + 1
        kept = answers(stage.model)[:interruptions]
        off += [
            max(0, whole - words, words - begun)
            for words, (whole, begun) in zip(kept, map(words_heard, far_end.heard), strict=False)
        ]
    assert len(off) == interruptions * len(delays_s)
    wrong = [words for words in off if words > 1]
    assert len(wrong) <= len(off) // 100, wrong


async def test_no_audio_of_the_old_reply_comes_after_the_clear() -> None:
    far_end = FarEnd(delay_s=0.1)
    stage = call(far_end)
    async with stage:
        far_end.begin()
        far_end.press("1")
        await asyncio.sleep(2)
        far_end.press("2")
        await asyncio.sleep(3)
    events = [json.loads(str(frame))["event"] for frame in stage.frames]
    cleared = events.index("clear")
    assert events[:cleared].count("media") > 5
    assert events[cleared + 1 : cleared + 3] == ["mark", "media"], "the next reply's own"
    assert events.count("clear") == 1
    names = [json.loads(str(f))["mark"]["name"] for f in stage.frames if '"mark"' in str(f)[:17]]
    assert [name for name in names[1:] if name.startswith("1:")] == []


async def test_a_caller_hears_an_apology_when_the_model_is_down() -> None:
    far_end = FarEnd(delay_s=0.02)
    stage = call(far_end)
    stage.model.failure = Failure(calls=9)
    stage.apology = FallbackMessage()
    async with stage:
        far_end.begin()
        far_end.press("1")
        await asyncio.sleep(10)
        played_ms = far_end.played_bytes / BYTES_PER_MS
    assert played_ms == pytest.approx(len(FallbackMessage().en) * MS_PER_CHARACTER, abs=60)


async def test_a_caller_who_hangs_up_in_a_reply_leaves_nothing_behind() -> None:
    far_end = FarEnd(delay_s=0.02)
    stage = call(far_end)
    async with stage:  # which checks it
        far_end.begin()
        far_end.press("1")
        await asyncio.sleep(2)
        far_end.say(event="stop", stop={})
        await asyncio.sleep(1)
        assert far_end.closed_with == (1000, "")
