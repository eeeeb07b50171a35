"""Chains of scripted services in virtual time: who is asked, for how long, and what
comes out.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from voicechat.errors import BrokenOffError, FailureKind, ProviderError
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    Extras,
    ReplyFinished,
    ReplyPart,
    SpeechSynthesizer,
    TextDelta,
    ThoughtDelta,
    ToolsStarted,
    VoiceOptions,
)
from voicechat.runtime.fallback.chains import order_of
from voicechat.runtime.fallback.chat import ChatChain
from voicechat.runtime.fallback.circuit_breaker import CircuitState
from voicechat.runtime.fallback.link import COLD_AFTER_S, ChainLink
from voicechat.runtime.fallback.policy import ServicePolicy, StageTimeouts
from voicechat.runtime.fallback.speech import SpeechChain
from voicechat.session.types import ToolCall
from voicechat.testing.conformance import check_chat_model, check_synthesizer
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer

T = TypeVar("T")
TIMEOUTS = StageTimeouts(first_s=12, between_s=3)
ASKED = ChatRequest(messages=())
ALWAYS = 10**9


def chat(*models: ChatModel, policy: ServicePolicy | None = None, cold: bool = False) -> ChatChain:
    """``cold``: none has answered before."""
    chain = ChatChain(
        [ChainLink(f"llm.{n}", model, policy) for n, model in enumerate(models)], TIMEOUTS
    )
    for link in chain.links:
        if not cold:
            link.note_use()
    return chain


def voices(*synthesizers: SpeechSynthesizer, policy: ServicePolicy | None = None) -> SpeechChain:
    return SpeechChain(
        [ChainLink(f"tts.{n}", voice, policy) for n, voice in enumerate(synthesizers)], TIMEOUTS
    )


class SlowVoice(ScriptedSynthesizer):
    """Computes on this machine, which is busy: 40 s for each piece of audio."""

    @property
    def patience_s(self) -> float:
        return 60.0

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        for _ in range(3):
            await asyncio.sleep(40)
            yield AudioChunk(bytes(320), 16_000)


async def test_a_slow_voice_of_this_machine_is_waited_for() -> None:
    chain = voices(SlowVoice())
    for link in chain.links:
        link.note_use()
    chunks = [chunk async for chunk in chain.synthesize("Hello.", VoiceOptions())]
    assert len(chunks) == 3


async def test_a_slow_voice_with_a_fallback_is_not() -> None:
    chain = voices(SlowVoice(), ScriptedSynthesizer())
    for link in chain.links:
        link.note_use()
    began_s = asyncio.get_running_loop().time()
    chunks = [chunk async for chunk in chain.synthesize("Hello.", VoiceOptions())]
    assert chunks
    assert asyncio.get_running_loop().time() - began_s < TIMEOUTS.first_s
    assert chain.stood_in["tts.1"] == 1


def saying(text: str, failure: Failure | None = None) -> ScriptedModel:
    return ScriptedModel(replies=[[text]], failure=failure or Failure(calls=0))


def hanging(after: int = 0) -> Failure:
    return Failure(after=after, kind=None, calls=ALWAYS)


def broken(
    kind: FailureKind = FailureKind.CONNECTIVITY, after: int = 0, calls: int = ALWAYS
) -> Failure:
    return Failure(after=after, kind=kind, calls=calls)


async def text_of(chain: ChatChain) -> str:
    return "".join([part.text async for part in chain.reply(ASKED) if isinstance(part, TextDelta)])


def state_of(chain: ChatChain) -> CircuitState:
    return chain.links[0].breaker.state


def now_s() -> float:
    return asyncio.get_running_loop().time()


# --- order ----------------------------------------------------------------------------


def test_the_order_is_the_configured_one_with_each_name_once() -> None:
    fallbacks = {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}
    assert order_of("a", fallbacks) == ("a", "b", "d", "c")
    assert order_of("d", fallbacks) == ("d",)


@pytest.mark.parametrize(
    ("fallbacks", "complaint"),
    [
        ({"a": ["a"]}, "a would be its own fallback: a -> a"),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, "b would be its own fallback: a -> b -> c -> b"),
        ({"a": ["x"], "b": []}, r"no service 'x' of this kind \(configured: a, b\)"),
    ],
)
def test_unknown_names_and_circles_are_told(
    fallbacks: dict[str, Sequence[str]], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        order_of("a", fallbacks)


# --- chat models ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "took_s"),
    [
        (broken(FailureKind.CONNECTIVITY), 0),
        (broken(FailureKind.REJECTED), 0),
        (broken(FailureKind.BROKEN), 0),
        (Failure(foreign=ValueError("x"), calls=ALWAYS), 0),
        (Failure(garbage="text", calls=ALWAYS), 0),
        (hanging(), 6),
    ],
    ids=["lost", "rejected", "broken", "foreign", "garbage", "hangs"],
)
async def test_who_fails_before_saying_anything_is_replaced(
    failure: Failure, took_s: float
) -> None:
    first, second = saying("first", failure), saying("second")
    chain = chat(first, second)
    assert await text_of(chain) == "second"
    assert now_s() == took_s, (
        "a hanging service has half of the time, so that the other one still has its own"
    )
    assert (first.open, second.open) == (0, 0)
    assert chain.stood_in == {"llm.1": 1}
    assert sum(chain.links[0].failures.values()) == 1


async def test_after_the_first_words_nobody_stands_in() -> None:
    second = saying("second")
    chain = chat(ScriptedModel(replies=[["one ", "two"]], failure=broken(after=1)), second)
    parts = chain.reply(ASKED)
    assert await anext(parts) == TextDelta("one ")
    with pytest.raises(ProviderError, match="connectivity"):
        await anext(parts)
    assert second.requests == []


async def test_a_tool_call_is_a_first_word_too_and_an_empty_piece_is_none() -> None:
    @dataclass
    class Calling:
        first: ReplyPart
        requests: list[ChatRequest] = field(default_factory=list)

        async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
            yield self.first
            raise ProviderError("calling", FailureKind.BROKEN, "then it breaks")

    with pytest.raises(ProviderError):
        await text_of(chat(Calling(ToolCall(0, "id", "f", "")), saying("second")))
    assert await text_of(chat(Calling(TextDelta("")), saying("second"))) == "second"


async def test_a_service_that_stops_between_two_words_is_given_up() -> None:
    chain = chat(ScriptedModel(replies=[["one ", "two"]], failure=hanging(after=1)))
    with pytest.raises(ProviderError, match="timeout"):
        await text_of(chain)
    assert now_s() == TIMEOUTS.between_s


async def test_tools_that_the_model_carries_out_take_their_time_and_no_longer() -> None:
    @dataclass
    class Working:
        works_s: float

        async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
            yield ToolsStarted(20)
            await asyncio.sleep(self.works_s)
            yield TextDelta("done")

    assert await text_of(chat(Working(20 + TIMEOUTS.first_s - 1))) == "done"
    with pytest.raises(ProviderError, match="timeout"):
        await text_of(chat(Working(20 + TIMEOUTS.first_s + 1)))


async def test_a_lost_connection_is_tried_once_more_when_nobody_else_is_left() -> None:
    chain = chat(saying("again", broken(calls=1)))
    assert await text_of(chain) == "again"
    dead = saying("never", broken())
    with pytest.raises(ProviderError):
        await text_of(chat(dead))
    assert len(dead.requests) == 2


async def test_who_asks_to_be_asked_later_is_left_alone_until_then() -> None:
    busy = Failure(kind=FailureKind.RATE_LIMIT, retry_after_s=20)
    first, second = saying("first", busy), saying("second")
    chain = chat(first, second)
    assert [await text_of(chain), await text_of(chain)] == ["second", "second"]
    assert len(first.requests) == 1
    assert state_of(chain) is CircuitState.CLOSED, "it is no fault to be popular"
    await asyncio.sleep(20)
    assert await text_of(chain) == "first"


async def test_who_is_alone_is_waited_for_when_it_says_for_how_long_and_there_is_time() -> None:
    def busy(for_s: float) -> ChatChain:
        return chat(saying("late", Failure(kind=FailureKind.RATE_LIMIT, retry_after_s=for_s)))

    assert await text_of(busy(5)) == "late"
    assert now_s() == 5
    with pytest.raises(ProviderError, match="rate_limit"):
        await text_of(busy(50))
    assert now_s() == 5, "and not waited for when there is not"


async def test_who_asked_to_be_left_alone_is_busy_for_the_next_request_too() -> None:
    busy = Failure(kind=FailureKind.RATE_LIMIT, retry_after_s=50, calls=ALWAYS)
    chain = chat(
        saying("never", busy), saying("nor", Failure(kind=FailureKind.RATE_LIMIT, retry_after_s=70))
    )
    for waited_s, left_s in ((0, 50), (20, 30)):
        await asyncio.sleep(waited_s)
        with pytest.raises(ProviderError) as told:
            await text_of(chain)
        assert told.value.kind is FailureKind.RATE_LIMIT
        assert told.value.retry_after_s in (left_s, 70), (
            "the first request is told what the last service said"
        )


async def test_attempt_s_says_how_long_the_first_may_take() -> None:
    chain = chat(saying("first", hanging()), saying("second"), policy=ServicePolicy(attempt_s=1.5))
    assert await text_of(chain) == "second"
    assert now_s() == 1.5


async def test_of_three_that_hang_each_has_its_share_and_the_last_failure_is_told_in_time() -> None:
    models = [saying("x", hanging()) for _ in range(3)]
    with pytest.raises(ProviderError, match="timeout"):
        await text_of(chat(*models))
    assert now_s() == TIMEOUTS.first_s
    assert [len(model.requests) for model in models] == [1, 1, 1]


# --- thoughts -------------------------------------------------------------------------


@dataclass
class Thinking:
    """Gives a thought each second, then says its text."""

    seconds: int
    text: str = "thought through"
    pause_s: float = 1
    requests: list[ChatRequest] = field(default_factory=list)

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        self.requests.append(request)
        for _ in range(self.seconds):
            await asyncio.sleep(self.pause_s)
            yield ThoughtDelta("hm")
        if self.text:
            yield TextDelta(self.text)


async def test_thoughts_show_that_a_model_is_at_work() -> None:
    chain = chat(Thinking(60), saying("second"))
    assert await text_of(chain) == "thought through"
    assert now_s() == 60


async def test_thoughts_are_passed_on() -> None:
    parts = [part async for part in chat(Thinking(2)).reply(ASKED)]
    assert parts == [ThoughtDelta("hm"), ThoughtDelta("hm"), TextDelta("thought through")]


async def test_thoughts_have_an_end_and_who_stands_in_has_its_time_all_the_same() -> None:
    first = Thinking(1_000)
    chain = chat(first, ScriptedModel(replies=[["second"]], first_ms=11_000))
    assert await text_of(chain) == "second"
    assert now_s() == 1 + TIMEOUTS.thinking_s + 11
    assert chain.links[0].failures[FailureKind.TIMEOUT] == 1


async def test_who_stops_in_the_middle_of_its_thoughts_is_replaced() -> None:
    chain = chat(Thinking(2, pause_s=TIMEOUTS.between_s + 1), saying("second"))
    assert await text_of(chain) == "second"
    assert now_s() == TIMEOUTS.between_s + 1 + TIMEOUTS.between_s


# --- answers without a word -----------------------------------------------------------


@dataclass
class Parts:
    parts: Sequence[ReplyPart]

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        for part in self.parts:
            yield part


NOTHING: list[list[ReplyPart]] = [
    [],
    [ReplyFinished()],
    [TextDelta(""), ReplyFinished()],
    [TextDelta("\n"), TextDelta(" "), ReplyFinished("stop")],
    [ThoughtDelta("hm"), ReplyFinished("stop")],
    [Extras(choice={"refs": []}), ReplyFinished("tool_calls")],
]


@pytest.mark.parametrize("parts", NOTHING)
async def test_an_answer_without_a_word_is_a_failure_and_another_model_is_asked(
    parts: list[ReplyPart],
) -> None:
    chain = chat(Parts(parts), saying("second"))
    assert (await text_of(chain)).strip() == "second"
    assert chain.links[0].failures == {FailureKind.BROKEN: 1}
    with pytest.raises(ProviderError, match="without a word"):
        await text_of(chat(Parts(parts)))


async def test_answers_without_a_word_close_the_model_to_nobody() -> None:
    silent = chat(Parts([ReplyFinished()]), policy=ServicePolicy(breaker_failures=2))
    for _ in range(4):
        with pytest.raises(ProviderError, match="without a word"):
            await text_of(silent)
    assert state_of(silent) is CircuitState.CLOSED


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_model_that_says_why_it_says_nothing_has_answered(reason: str) -> None:
    finished = ReplyFinished(reason)
    parts = [
        part
        async for part in chat(Parts([ThoughtDelta("hm"), finished]), saying("second")).reply(ASKED)
    ]
    assert parts == [ThoughtDelta("hm"), finished]


@pytest.mark.parametrize(
    "asked",
    [
        ChatRequest(messages=({"role": "tool", "tool_call_id": "c", "content": "done"},)),
        ChatRequest(messages=(), options={"stop": "x"}),
    ],
    ids=["after a tool's answer", "with texts that end a reply"],
)
async def test_where_a_model_may_say_nothing(asked: ChatRequest) -> None:
    assert [part async for part in chat(Parts([ReplyFinished()])).reply(asked)] == [ReplyFinished()]


async def test_what_stands_beside_an_answer_is_passed_on_and_is_no_sign_of_life() -> None:
    @dataclass
    class Chatty:
        async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
            while True:
                await asyncio.sleep(1)
                yield Extras(answer={"ping": 1})

    parts = chat(Chatty()).reply(ASKED)
    given = [await anext(parts) for _ in range(11)]
    assert set(map(type, given)) == {Extras}
    with pytest.raises(ProviderError, match="timeout"):
        await anext(parts)
    assert now_s() == TIMEOUTS.first_s


# --- the first use --------------------------------------------------------------------


@dataclass
class Loading:
    """Loads its model at the first request, which takes so long; being left stops
    that.
    """

    load_s: float
    loaded: bool = False
    requests: int = 0

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        self.requests += 1
        if not self.loaded:
            await asyncio.sleep(self.load_s)
            self.loaded = True
        yield TextDelta("loaded")


async def test_the_first_use_of_a_service_may_take_longer() -> None:
    chain = chat(Loading(50), cold=True)
    assert await text_of(chain) == "loaded"
    assert now_s() == 50
    with pytest.raises(ProviderError, match="timeout"):
        await text_of(chat(Loading(50)))
    assert now_s() == 50 + TIMEOUTS.first_s


async def test_a_service_that_takes_too_long_at_its_first_use_has_no_longer_at_the_next() -> None:
    chain = chat(saying("x", hanging()), cold=True, policy=ServicePolicy(first_use_s=30))
    for took_s in (30, TIMEOUTS.first_s):
        begun_s = now_s()
        with pytest.raises(ProviderError, match="timeout"):
            await text_of(chain)
        assert now_s() - begun_s == took_s


async def test_a_service_that_was_not_used_for_five_minutes_is_cold_again() -> None:
    model = Loading(0)
    chain = chat(model, cold=True)
    await text_of(chain)
    for idle_s, answered in ((COLD_AFTER_S - 1, False), (COLD_AFTER_S, True)):
        await asyncio.sleep(idle_s)
        model.load_s, model.loaded = TIMEOUTS.first_s + 1, False
        try:
            await text_of(chain)
        except ProviderError:
            assert not answered
        else:
            assert answered
        model.load_s, model.loaded = 0, True


async def test_a_service_that_others_stand_in_for_goes_on_loading() -> None:
    first = Loading(50)
    chain = chat(first, saying("second"), cold=True)
    assert await text_of(chain) == "second"
    assert now_s() == TIMEOUTS.first_s / 2, "nobody waits for it while another one can answer"
    assert await text_of(chain) == "second"
    await asyncio.sleep(50)
    assert await text_of(chain) == "loaded"
    assert first.requests == 4, "two that were left, one that was waited for, and the last one"
    await chain.links[0].aclose()


async def test_a_voice_that_loads_its_model_may_take_longer_too() -> None:
    @dataclass
    class LoadingVoice:
        voices = ("v",)

        async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
            await asyncio.sleep(40)
            yield AudioChunk(b"\x01\x01", 16_000)

    assert [chunk async for chunk in voices(LoadingVoice()).synthesize("x", VoiceOptions())]
    assert now_s() == 40


# --- breakers and places --------------------------------------------------------------


async def test_who_keeps_failing_is_not_asked_any_more_until_a_trial_succeeds() -> None:
    first = saying("first", broken(FailureKind.BROKEN, calls=3))
    chain = chat(
        first, saying("second"), policy=ServicePolicy(breaker_failures=3, breaker_pause_s=30)
    )
    assert [await text_of(chain) for _ in range(5)] == ["second"] * 5
    assert len(first.requests) == 3
    assert state_of(chain) is CircuitState.OPEN
    await asyncio.sleep(30)
    assert [await text_of(chain) for _ in range(2)] == ["first"] * 2
    assert state_of(chain) is CircuitState.CLOSED


async def test_a_suspended_service_without_fallback_is_waited_for_if_its_pause_is_short() -> None:
    model = saying("x", broken(FailureKind.BROKEN, calls=1))
    chain = chat(model, policy=ServicePolicy(breaker_failures=1, breaker_pause_s=30))
    with pytest.raises(ProviderError, match="broken"):
        await text_of(chain)
    with pytest.raises(ProviderError, match="all are suspended"):
        await text_of(chain)
    assert (len(model.requests), now_s()) == (1, 0)
    await asyncio.sleep(20)
    assert await text_of(chain) == "x"
    assert now_s() == 30


async def test_an_interruption_is_no_failure() -> None:
    chain = chat(ScriptedModel(first_ms=5_000), policy=ServicePolicy(breaker_failures=1))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await text_of(chain)
    assert state_of(chain) is CircuitState.CLOSED
    assert chain.links[0].failures == {}


async def test_to_refuse_a_request_is_no_failure_of_the_service() -> None:
    first = saying("first", broken(FailureKind.REJECTED, calls=3))
    chain = chat(first, saying("second"), policy=ServicePolicy(breaker_failures=2))
    assert [await text_of(chain) for _ in range(4)] == ["second", "second", "second", "first"]
    assert chain.links[0].failures == {FailureKind.REJECTED: 3}


async def test_at_most_so_many_streams_and_the_queue_has_a_deadline() -> None:
    first = ScriptedModel(replies=[["first"]], first_ms=1_000)
    chain = chat(first, saying("second"), policy=ServicePolicy(max_streams=2, queue_s=0.5))
    texts = await asyncio.gather(*(text_of(chain) for _ in range(4)))
    assert sorted(texts) == ["first", "first", "second", "second"]
    assert chain.links[0].failures == {}, "it is no fault to be popular"
    assert sorted(await asyncio.gather(*(text_of(chain) for _ in range(2)))) == ["first", "first"]


async def test_a_place_is_free_again_when_a_reply_is_cancelled() -> None:
    chain = chat(saying("x", hanging(after=1)), policy=ServicePolicy(max_streams=1, queue_s=0.1))
    for _ in range(3):
        parts = chain.reply(ASKED)
        assert await anext(parts) == TextDelta("x")
        await parts.aclose()


@dataclass
class Probed(ScriptedModel):
    well: bool = False
    probes: int = 0

    async def probe(self) -> None:
        self.probes += 1
        if not self.well:
            raise ProviderError("probed", FailureKind.CONNECTIVITY, "not yet")


async def test_who_can_be_probed_is_tried_only_when_the_probe_is_answered() -> None:
    first = Probed(replies=[["first"]], failure=broken(FailureKind.BROKEN, calls=1))
    chain = chat(
        first, saying("second"), policy=ServicePolicy(breaker_failures=1, breaker_pause_s=1)
    )
    assert await text_of(chain) == "second"
    await asyncio.sleep(10)
    assert first.probes == 3, "after 1, 3 and 7 s"
    assert await text_of(chain) == "second"
    first.well = True
    await asyncio.sleep(10)
    assert await text_of(chain) == "first"
    assert len(first.requests) == 2
    await chain.links[0].aclose()


async def test_a_probe_that_is_told_when_to_come_again_does_not_come_before() -> None:
    class Busy(Probed):
        async def probe(self) -> None:
            self.probes += 1
            raise ProviderError("probed", FailureKind.RATE_LIMIT, "not yet", retry_after_s=30)

    first = Busy(failure=broken(FailureKind.BROKEN))
    chain = chat(
        first, saying("second"), policy=ServicePolicy(breaker_failures=1, breaker_pause_s=1)
    )
    assert await text_of(chain) == "second"
    await asyncio.sleep(30.9)
    assert first.probes == 1, "after 1 s"
    await asyncio.sleep(0.2)
    assert first.probes == 2, "30 s later"
    await chain.links[0].aclose()


async def test_closing_a_link_ends_its_probing() -> None:
    before = asyncio.all_tasks()
    chain = chat(
        Probed(failure=broken(FailureKind.BROKEN)), policy=ServicePolicy(breaker_failures=1)
    )
    with pytest.raises(ProviderError):
        await text_of(chain)
    assert asyncio.all_tasks() != before
    await chain.links[0].aclose()
    assert asyncio.all_tasks() == before


# --- synthesisers ---------------------------------------------------------------------


def voice(rate_hz: int, failure: Failure | None = None) -> ScriptedSynthesizer:
    return ScriptedSynthesizer(
        rate_hz=rate_hz, ms_per_character=100, failure=failure or Failure(calls=0)
    )


async def spoken(speech: SpeechSynthesizer, text: str) -> list[AudioChunk]:
    return [chunk async for chunk in speech.synthesize(text, VoiceOptions(voice="scripted"))]


def rates(chunks: list[AudioChunk]) -> set[int]:
    return {chunk.rate_hz for chunk in chunks}


async def test_a_sentence_that_fails_before_its_audio_and_the_rest_have_the_next_voice() -> None:
    first, second = voice(16_000, broken(calls=1)), voice(22_050)
    chain = voices(first, second)
    reply = chain.for_one_reply()
    assert [rates(await spoken(reply, text)) for text in ("One.", "Two.")] == [{22_050}, {22_050}]
    assert second.texts == ["One.", "Two."]
    assert rates(await spoken(chain.for_one_reply(), "Three.")) == {16_000}, (
        "the next reply begins anew"
    )


async def test_after_a_sentence_that_breaks_off_the_next_one_is_spoken_by_the_next_voice() -> None:
    first, second = voice(16_000, broken(after=2, calls=1)), voice(22_050)
    reply = voices(first, second).for_one_reply()
    with pytest.raises(BrokenOffError):
        await spoken(reply, "One two three.")
    assert rates(await spoken(reply, "Four.")) == {22_050}
    assert (first.texts, second.texts) == (["One two three."], ["Four."])
    assert (first.open, second.open) == (0, 0)


async def test_a_sentence_that_began_before_the_change_of_voice_does_not_take_it_back() -> None:
    first = voice(16_000, broken(calls=1))
    first.first_ms = 100
    reply = voices(first, voice(22_050)).for_one_reply()
    both = await asyncio.gather(spoken(reply, "One."), spoken(reply, "Two."))
    assert [rates(chunks) for chunks in both] == [{22_050}, {16_000}]
    assert rates(await spoken(reply, "Three.")) == {22_050}


async def test_a_sentence_that_breaks_off_is_a_failure_when_nobody_can_go_on() -> None:
    with pytest.raises(ProviderError) as raised:
        await spoken(voices(voice(16_000, broken(after=2))), "One two three.")
    assert not isinstance(raised.value, BrokenOffError)


@pytest.mark.parametrize(
    "garbage",
    [AudioChunk(b"abc", 16_000), AudioChunk(b"ab", 0), "no chunk", AudioChunk(b"", 16_000)],
    ids=["odd", "no rate", "no chunk", "nothing"],
)
async def test_what_is_no_audio_is_replaced(garbage: object) -> None:
    first = voice(16_000, Failure(garbage=garbage, calls=ALWAYS))
    assert rates(await spoken(voices(first, voice(22_050)), "One.")) == {22_050}


async def test_a_change_of_rate_within_a_sentence_breaks_it_off() -> None:
    first = voice(16_000, Failure(after=1, garbage=AudioChunk(b"ab", 8_000), calls=ALWAYS))
    with pytest.raises(BrokenOffError):
        await spoken(voices(first, voice(22_050)), "One.")


async def test_nothing_to_say_is_no_failure() -> None:
    first = ScriptedSynthesizer(silent=lambda text: True)
    chain = voices(first, voice(22_050))
    assert await spoken(chain, "...") == []
    assert chain.stood_in == {}


async def test_who_stands_in_speaks_with_its_own_voice_unless_it_knows_the_wished_one() -> None:
    wished: list[str] = []

    class Voice(ScriptedSynthesizer):
        voices = ("its own",)

        def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
            wished.append(voice.voice)
            return super().synthesize(text, voice)

    chain = voices(voice(16_000, broken()), Voice())
    for name in ("scripted", "its own"):
        async for _ in chain.synthesize("One.", VoiceOptions(voice=name)):
            pass
    assert wished == ["", "its own"]
    assert chain.voices == ("scripted",)


async def test_prosody_is_only_asked_for_when_all_can_shape_it() -> None:
    class Shaping(ScriptedSynthesizer):
        def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
            return speech_rate < 1.5

    assert voices(Shaping(), Shaping()).shapes_prosody(1.2, 1)
    assert not voices(Shaping(), Shaping()).shapes_prosody(1.6, 1)
    assert not voices(Shaping(), ScriptedSynthesizer()).for_one_reply().shapes_prosody(1.2, 1)


# --- chains are providers -------------------------------------------------------------


async def test_chains_keep_the_providers_contract_themselves() -> None:
    await check_chat_model(chat(saying("x", broken()), ScriptedModel(first_ms=100, delta_ms=40)))

    def mute(text: str) -> bool:
        return not any(map(str.isalnum, text))

    await check_synthesizer(
        voices(voice(16_000, broken()), ScriptedSynthesizer(first_ms=50, silent=mute))
    )


async def test_the_closing_word_is_passed_on() -> None:
    assert [part async for part in chat(saying("x")).reply(ASKED)] == [
        TextDelta("x"),
        ReplyFinished("stop"),
    ]
