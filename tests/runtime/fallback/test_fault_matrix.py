"""Every stage × every fault × alone or with a fallback, as ``docs/failures.md`` says:
its table is the expectation.

Faults are made at the seam of the providers, in virtual time. What sockets do to a
provider is in ``tests/providers/test_faulty_endpoint.py``.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.conftest import ROOT
from voicechat.errors import FailureKind, ProviderError, Status
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    RecognitionOptions,
    SpeechRecognizer,
    SpeechSynthesizer,
)
from voicechat.runtime.conversation import SessionProviders
from voicechat.runtime.fallback.chains import chat_chains, recognition_chains, speech_chains
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.session.commands import CommitTurn
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.notices import Failed, ReplyAudio, TurnCompleted
from voicechat.session.types import Transcript
from voicechat.testing.harness import FRAME_BYTES, ScriptedHarness
from voicechat.testing.scripted import (
    Failure,
    ScriptedModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)

PAGE: Path = ROOT / "docs" / "failures.md"
ALWAYS = 10**9
MIDDLE = {"asr": 1, "llm": 1, "tts": 2}
"""After so many words, pieces of text, chunks."""
SENTENCES = ("Hello there my friend.", "How are you today?")
MS_PER_CHARACTER = 50
WHOLE_MS = sum(map(len, SENTENCES)) * MS_PER_CHARACTER
GARBAGE: Mapping[str, object] = {
    "asr": "go on",
    "llm": {"choices": []},
    "tts": AudioChunk(b"odd", 16_000),
}


Faulty: TypeAlias = ScriptedRecognizer | ScriptedModel | ScriptedSynthesizer


def refuses(stage: str) -> Failure:
    return Failure(kind=FailureKind.CONNECTIVITY, calls=ALWAYS)


def busy(for_s: float) -> Callable[[str], Failure]:
    return lambda stage: Failure(kind=FailureKind.RATE_LIMIT, retry_after_s=for_s)


FAULTS: Mapping[str, Callable[[str], Failure]] = {
    "refuses": refuses,
    "rejects the request": lambda stage: Failure(kind=FailureKind.REJECTED, calls=ALWAYS),
    "is busy, come back in 2 s": busy(2),
    "is busy, come back in 30 s": busy(30),
    "hangs before its first word": lambda stage: Failure(kind=None, calls=ALWAYS),
    "hangs in the middle": lambda stage: Failure(MIDDLE[stage], kind=None, calls=ALWAYS),
    "breaks off in the middle": lambda stage: Failure(
        MIDDLE[stage], kind=FailureKind.CONNECTIVITY, calls=ALWAYS
    ),
    "stops in the middle as if done": lambda stage: Failure(
        MIDDLE[stage], stops=True, calls=ALWAYS
    ),
    "gives garbage": lambda stage: Failure(garbage=GARBAGE[stage], calls=ALWAYS),
    "gives garbage in the middle": lambda stage: Failure(
        MIDDLE[stage], garbage=GARBAGE[stage], calls=ALWAYS
    ),
    "raises what it must not": lambda stage: Failure(foreign=ValueError("x"), calls=ALWAYS),
}


@dataclass(kw_only=True)
class FaultyHarness(ScriptedHarness):
    """A conversation whose services are chains: one each, or one with a fallback that
    works.
    """

    recognizer: ScriptedRecognizer = field(
        default_factory=lambda: ScriptedRecognizer(texts=("go on please",))
    )
    model: ScriptedModel = field(default_factory=lambda: saying(*SENTENCES))
    synthesizer: ScriptedSynthesizer = field(default_factory=lambda: ScriptedSynthesizer())
    spare_recognizer: ScriptedRecognizer = field(
        default_factory=lambda: ScriptedRecognizer(texts=("go on please",))
    )
    spare_model: ScriptedModel = field(default_factory=lambda: saying(*SENTENCES))
    spare_synthesizer: ScriptedSynthesizer = field(
        default_factory=lambda: ScriptedSynthesizer(rate_hz=22_050)
    )
    third_recognizer: ScriptedRecognizer = field(
        default_factory=lambda: ScriptedRecognizer(texts=("go on please",))
    )
    third_model: ScriptedModel = field(default_factory=lambda: saying(*SENTENCES))
    third_synthesizer: ScriptedSynthesizer = field(
        default_factory=lambda: ScriptedSynthesizer(rate_hz=24_000)
    )
    spared: bool = False
    spared_twice: bool = False
    """The fallback has one, too."""
    cold: bool = False
    """No service has answered before."""
    apology: FallbackMessage | None = field(default_factory=FallbackMessage)

    def providers(self) -> SessionProviders:
        asr: dict[str, ChainLink[SpeechRecognizer]] = {
            "default": ChainLink("asr.default", self.recognizer),
            "spare": ChainLink("asr.spare", self.spare_recognizer),
            "third": ChainLink("asr.third", self.third_recognizer),
        }
        llm: dict[str, ChainLink[ChatModel]] = {
            "default": ChainLink("llm.default", self.model),
            "spare": ChainLink("llm.spare", self.spare_model),
            "third": ChainLink("llm.third", self.third_model),
        }
        tts: dict[str, ChainLink[SpeechSynthesizer]] = {
            "default": ChainLink("tts.default", self.synthesizer),
            "spare": ChainLink("tts.spare", self.spare_synthesizer),
            "third": ChainLink("tts.third", self.third_synthesizer),
        }
        spares = ("spare", "third") if self.spared_twice else ("spare",) if self.spared else ()
        orders = {"default": ("default", *spares)}
        for link in (*asr.values(), *llm.values(), *tts.values()):
            if not self.cold:
                link.note_use()
        model = chat_chains(llm, orders, self.limits)["default"]
        return replace(
            super().providers(),
            recognizer=recognition_chains(asr, orders, self.limits)["default"],
            models=lambda _: model,
            synthesizer=speech_chains(tts, orders, self.limits)["default"],
        )

    @property
    def open_streams(self) -> int:
        spare = self.spare_recognizer.open + self.spare_model.open + self.spare_synthesizer.open
        third = self.third_recognizer.open + self.third_model.open + self.third_synthesizer.open
        return super().open_streams + spare + third

    async def take_turn(self, number: int) -> float:
        """Speak for 900 ms and finish; give the seconds from then to the end of the
        turn.
        """
        for _ in range(9):
            self.send_audio(bytes(FRAME_BYTES))
            await asyncio.sleep(0.1)
        begun_s = asyncio.get_running_loop().time()
        self.send(CommitTurn())
        await self.notice(TurnCompleted, number)
        return asyncio.get_running_loop().time() - begun_s

    @property
    def outcome(self) -> str:
        """What the first turn came to, in the words of the table."""
        errors = dict.fromkeys(f"error {Status.of(told.fault)}" for told in self.of(Failed))
        return ", ".join([*errors, self._said])

    @property
    def _said(self) -> str:
        texts = [
            *self.synthesizer.texts,
            *self.spare_synthesizer.texts,
            *self.third_synthesizer.texts,
        ]
        made_ms = sum(len(told.payload) for told in self.of(ReplyAudio)) // 32
        if not made_ms:
            return "no reply"
        if texts == [FallbackMessage().en]:
            return "apology"
        by = " by the third" if self._third_used else " by the fallback" if self._spare_used else ""
        if made_ms > 0.98 * WHOLE_MS:
            return f"reply{by}"
        return f"part of the reply, the rest{by}" if by else "part of the reply"

    @property
    def _third_used(self) -> bool:
        used = [
            self.third_recognizer.heard_ms,
            self.third_model.requests,
            self.third_synthesizer.texts,
        ]
        return any(used)

    @property
    def _spare_used(self) -> bool:
        used = [
            self.spare_recognizer.heard_ms,
            self.spare_model.requests,
            self.spare_synthesizer.texts,
        ]
        return any(used)


class DyingAtTheEnd(ScriptedRecognizer):
    """Takes all of the audio, and then breaks without a word."""

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        self.texts = ()
        async for result in super().recognize(audio, options):
            yield result
        raise ProviderError("dying", FailureKind.BROKEN, "as told")


class Loading(ScriptedRecognizer):
    """Loads its model when it has been given the audio; then its results come one after
    the other.
    """

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        heard_bytes = 0
        async for pcm in audio:
            heard_bytes += len(pcm)
        await asyncio.sleep(14)
        yield Transcript("go on", 0)
        await asyncio.sleep(0.1)
        yield Transcript("go on please", 0, heard_bytes // 32)


def saying(*sentences: str) -> ScriptedModel:
    return ScriptedModel(replies=[[f"{sentence} " for sentence in sentences]])


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    stage: str
    fault: str
    alone: str
    alone_s: str
    spared: str
    spared_s: str


def rows() -> list[Row]:
    lines = [
        line
        for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith(("| asr", "| llm", "| tts"))
    ]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]


def test_the_table_has_every_stage_and_every_fault() -> None:
    assert [(row.stage, row.fault) for row in rows()] == [
        (stage, fault) for stage in MIDDLE for fault in FAULTS
    ]


@pytest.mark.parametrize("spared", [False, True], ids=["alone", "with-a-fallback"])
@pytest.mark.parametrize(
    "row", rows(), ids=lambda row: f"{row.stage}-{row.fault.replace(' ', '-')}"
)
async def test_each_fault_ends_as_the_table_says(row: Row, spared: bool) -> None:
    stage = FaultyHarness(spared=spared)
    services: dict[str, Faulty] = {
        "asr": stage.recognizer,
        "llm": stage.model,
        "tts": stage.synthesizer,
    }
    faulty = services[row.stage]
    faulty.failure = FAULTS[row.fault](row.stage)
    async with stage:
        took_s = await stage.take_turn(1)
        outcome = (stage.outcome, f"{took_s:.1f}")
        assert outcome == ((row.spared, row.spared_s) if spared else (row.alone, row.alone_s))
        assert isinstance(stage.notices[-1], TurnCompleted)
        await asyncio.sleep(40)  # breakers and rests are over
        assert len(stage.of(TurnCompleted)) == 1
        faulty.failure = Failure(calls=0)
        told = len(stage.notices)
        await stage.take_turn(2)
        second = {type(notice) for notice in stage.notices[told:]}
        assert Failed not in second, "the session goes on"
        assert ReplyAudio in second
    assert stage.open_streams == 0


@dataclass(frozen=True)
class TripleRow:
    """A line of the table of three services of which the first two have the fault:
    outcome and seconds by stage.
    """

    fault: str
    cells: Mapping[str, tuple[str, str]]


def triple_rows() -> list[TripleRow]:
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| both: ")]
    found = []
    for line in lines:
        fault, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        by_stage = dict(zip(MIDDLE, zip(cells[::2], cells[1::2], strict=True), strict=True))
        found.append(TripleRow(fault.removeprefix("both: "), by_stage))
    return found


def test_the_table_of_three_has_every_fault() -> None:
    assert [row.fault for row in triple_rows()] == list(FAULTS)


@pytest.mark.parametrize("stage_name", MIDDLE)
@pytest.mark.parametrize("row", triple_rows(), ids=lambda row: row.fault.replace(" ", "-"))
async def test_two_of_three_fail_and_it_ends_as_the_table_says(
    row: TripleRow, stage_name: str
) -> None:
    stage = FaultyHarness(spared_twice=True)
    services: dict[str, tuple[Faulty, Faulty]] = {
        "asr": (stage.recognizer, stage.spare_recognizer),
        "llm": (stage.model, stage.spare_model),
        "tts": (stage.synthesizer, stage.spare_synthesizer),
    }
    for faulty in services[stage_name]:
        faulty.failure = FAULTS[row.fault](stage_name)
    async with stage:
        took_s = await stage.take_turn(1)
        assert (stage.outcome, f"{took_s:.1f}") == row.cells[stage_name]
        assert isinstance(stage.notices[-1], TurnCompleted)


async def test_two_recognisers_that_die_at_the_end_of_the_turn_leave_it_to_the_third() -> None:
    """All three have taken the audio: nobody but the session can have it heard
    again.
    """
    stage = FaultyHarness(
        spared_twice=True, recognizer=DyingAtTheEnd(), spare_recognizer=DyingAtTheEnd()
    )
    async with stage:
        await stage.take_turn(1)
    heard = [
        stage.recognizer.heard_ms,
        stage.spare_recognizer.heard_ms,
        stage.third_recognizer.heard_ms,
    ]
    assert heard == [[900], [900], [900]], "each once, and each everything"
    assert stage.outcome == "reply by the third"


async def test_recognisers_that_all_die_at_the_end_of_the_turn_are_asked_once_each() -> None:
    dying = [DyingAtTheEnd(), DyingAtTheEnd(), DyingAtTheEnd()]
    stage = FaultyHarness(spared_twice=True)
    stage.recognizer, stage.spare_recognizer, stage.third_recognizer = dying
    async with stage:
        await stage.take_turn(1)
    assert [recognizer.heard_ms for recognizer in dying] == [[900], [900], [900]]
    assert stage.outcome == "error 50201, no reply"


@pytest.mark.parametrize("cold", [True, False])
async def test_services_that_have_to_load_their_models_answer_the_first_turn(cold: bool) -> None:
    """Ears, model and voice are slower than any deadline allows that holds once they
    have answered.
    """
    stage = FaultyHarness(cold=cold, recognizer=Loading())
    stage.model.first_ms, stage.synthesizer.first_ms = 25_000, 8_000
    async with stage:
        took_s = await stage.take_turn(1)
        if cold:
            assert stage.outcome == "reply"
            assert 47 <= took_s < 48
        else:
            assert stage.outcome == "error 50201, no reply"


async def test_a_recogniser_that_does_not_answer_has_its_longer_time_once() -> None:
    stage = FaultyHarness(
        cold=True, recognizer=ScriptedRecognizer(texts=("go on",), word_ms=10_000, final_ms=10**9)
    )
    async with stage:
        assert [round(await stage.take_turn(number), 1) for number in (1, 2)] == [60.5, 10.0]


async def test_nobody_waits_longer_for_a_cold_service_that_another_one_stands_in_for() -> None:
    stage = FaultyHarness(cold=True, spared=True)
    stage.model.failure = FAULTS["hangs before its first word"]("llm")
    async with stage:
        assert round(await stage.take_turn(1), 1) == 7.5
        await asyncio.sleep(
            ServicePolicy().first_use_s
        )  # it is asked again in the background, so long at most
    assert stage.outcome == "reply by the fallback"


async def test_an_unheard_sentence_is_started_over_and_one_that_breaks_off_is_not() -> None:
    stage = FaultyHarness(spared=True)
    stage.synthesizer.failure = Failure(after=2, kind=None, calls=ALWAYS)
    async with stage:
        await stage.take_turn(1)
    assert stage.synthesizer.texts == list(SENTENCES)
    assert stage.spare_synthesizer.texts == [SENTENCES[1]]
    made_ms = sum(len(told.payload) for told in stage.of(ReplyAudio)) / 32
    assert made_ms == pytest.approx(200 + len(SENTENCES[1]) * MS_PER_CHARACTER, abs=20)
    assert not stage.of(Failed)
