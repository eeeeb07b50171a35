"""What becomes of several conversations on one model that is too slow for them: partial
results become fewer first, then replies no longer begin early, then newcomers are
refused, and every complete utterance is recognised.

The model is scripted, in virtual time; the provider, the queue of its passes and
admission are the real ones.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import orjson

from tests.providers.humming import silence, voice
from voicechat.config import AdmissionConfig
from voicechat.errors import AtCapacityError
from voicechat.providers.faster_whisper import (
    FIRST_PARTIAL_MS,
    FasterWhisperRecognizer,
    PassAnswer,
    PassOptions,
)
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.providers.model_process import ModelProcess
from voicechat.providers.utterances import Schedule
from voicechat.server.load_shedding import LoadShedder
from voicechat.server.load_signals import LoadLevel, load_limits

UTTERANCES = 3
SPEECH_MS, PAUSE_MS = 2_400, 1_600
BLOCK_MS = 100
SAID = (voice(SPEECH_MS) + silence(PAUSE_MS)) * UTTERANCES


@dataclass
class SlowModel:
    """Takes a time for each pass, as a model whose cores are shared."""

    pass_s: float
    partial: int = 0
    """Passes for partial results that ended."""

    @asynccontextmanager
    async def job(self, options: bytes) -> AsyncGenerator["SlowPass", None]:
        yield SlowPass(self, PassOptions(**orjson.loads(options)))

    def note_speed(self, spent_s: float, speech_s: float) -> None:
        pass


@dataclass
class SlowPass:
    """A pass, with the methods of a `Channel`."""

    model: SlowModel
    asked: PassOptions

    async def send(self, _pcm: bytes) -> None:
        pass

    def finish_input(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await asyncio.sleep(self.model.pass_s)
        self.model.partial += not self.asked.complete
        yield orjson.dumps(PassAnswer(text="so it goes", language="en"))


@dataclass
class Outcome:
    """Of conversations at the same time."""

    finals: int = 0
    partial_passes: int = 0
    most_waiting: int = 0
    levels: set[LoadLevel] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)


async def converse(sessions: int, pass_s: float) -> Outcome:
    """Let so many users speak, each beginning 0.7 s after the one before."""
    model = SlowModel(pass_s)
    recognizer = FasterWhisperRecognizer(
        cast("ModelProcess", model), Schedule(first_partial_ms=FIRST_PARTIAL_MS)
    )
    outcome = Outcome()
    shedder = LoadShedder(
        load_limits(AdmissionConfig()),
        sessions=lambda: sessions,
        waiting_streams=lambda: recognizer.waiting_streams,
        time_encoders=lambda report: report(0.0),
        on_refused=outcome.refusals.append,
        busy_s=(lambda: 0.0,),
    )
    shedder.on_level = (outcome.levels.add,)

    async def user(number: int) -> None:
        await asyncio.sleep(0.7 * number)
        transcripts = recognizer.recognize(microphone(), RecognitionOptions())
        async with aclosing(transcripts):
            async for transcript in transcripts:
                outcome.finals += transcript.final

    async def newcomers() -> None:
        while True:
            await asyncio.sleep(0.1)
            outcome.most_waiting = max(outcome.most_waiting, recognizer.waiting_streams)
            with suppress(AtCapacityError):  # counted by on_refused
                shedder.admit_session()

    with shedder.measuring():
        knocking = asyncio.get_running_loop().create_task(newcomers())
        await asyncio.gather(*map(user, range(sessions)))
        knocking.cancel()
    outcome.partial_passes = model.partial
    return outcome


async def microphone() -> AsyncIterator[bytes]:
    for start in range(0, len(SAID), BLOCK_MS * 32):
        await asyncio.sleep(BLOCK_MS / 1000)
        yield SAID[start : start + BLOCK_MS * 32]


async def test_partial_results_become_fewer_before_anybody_waits() -> None:
    one, four = await converse(1, pass_s=0.3), await converse(4, pass_s=0.3)
    assert one.finals == UTTERANCES
    assert one.partial_passes >= 3 * UTTERANCES
    assert four.finals == 4 * UTTERANCES
    assert 0 < four.partial_passes / 4 < one.partial_passes * 0.7
    for outcome in (one, four):
        assert outcome.most_waiting == 0
        assert not outcome.levels
        assert not outcome.refusals


async def test_then_no_reply_begins_early_before_newcomers_are_refused() -> None:
    outcome = await converse(4, pass_s=0.8)
    assert outcome.finals == 4 * UTTERANCES
    assert outcome.partial_passes <= 2 * UTTERANCES
    assert outcome.most_waiting == 1
    assert outcome.levels == {LoadLevel.SHEDDING}
    assert not outcome.refusals


async def test_then_newcomers_are_refused_with_the_reason() -> None:
    outcome = await converse(6, pass_s=1.2)
    assert outcome.finals == 6 * UTTERANCES
    assert outcome.partial_passes <= UTTERANCES
    assert outcome.most_waiting >= 2
    assert outcome.levels >= {LoadLevel.REFUSING}
    assert set(outcome.refusals) == {"waiting_streams"}
