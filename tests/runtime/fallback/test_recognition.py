"""Chained recognisers: alone, and with the audio input that keeps the audio for
them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import RecognitionOptions, SpeechRecognizer
from voicechat.runtime.audio_input import AudioInput
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.runtime.fallback.recognition import RECORDING_S, RecognitionChain
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition, Route, RouteAudio
from voicechat.session.events import Event, RecognitionEnded, RecognitionFailed, Transcribed
from voicechat.session.limits import SessionLimits
from voicechat.session.types import InputSettings, Transcript
from voicechat.testing.conformance import check_recognizer
from voicechat.testing.scripted import Failure, ScriptedRecognizer

SPEECH_100_MS = b"\x00\x10" * 1_600
LAST_RESULT_S = 8.0
ALWAYS = 10**9


def chain(*recognizers: SpeechRecognizer, policy: ServicePolicy | None = None) -> RecognitionChain:
    links = [ChainLink(f"asr.{n}", recognizer, policy) for n, recognizer in enumerate(recognizers)]
    return RecognitionChain(links, LAST_RESULT_S)


def hearing(*texts: str, failure: Failure | None = None) -> ScriptedRecognizer:
    return ScriptedRecognizer(texts=texts, failure=failure or Failure(calls=0))


def hanging(after: int = 0) -> Failure:
    return Failure(after=after, kind=None, calls=ALWAYS)


async def pieces(count: int = 10, every_s: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield SPEECH_100_MS
        await asyncio.sleep(every_s)


async def understood(
    recognizer: SpeechRecognizer, audio: AsyncIterator[bytes], **options: int | bool
) -> str:
    results = recognizer.recognize(audio, RecognitionOptions(**options))  # type: ignore[arg-type]
    return " ".join([result.text async for result in results if result.final])


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("failure", "took_s"),
    [
        (Failure(kind=FailureKind.CONNECTIVITY, calls=ALWAYS), 0),
        (Failure(foreign=OSError("x"), calls=ALWAYS), 0),
        (Failure(garbage="text", calls=ALWAYS), 0),
        (Failure(stops=True, calls=ALWAYS), 0),
        (hanging(), LAST_RESULT_S / 2),
    ],
    ids=["lost", "foreign", "garbage", "stops", "hangs"],
)
async def test_who_fails_before_taking_audio_is_replaced_at_once(
    failure: Failure, took_s: float
) -> None:
    first, second = hearing("first", failure=failure), hearing("second")
    assert await understood(chain(first, second), pieces()) == "second"
    assert now_s() == took_s
    assert second.heard_ms == [1_000], "all of the audio"
    assert (first.open, second.open) == (0, 0)


async def test_who_fails_after_taking_audio_says_that_another_can_hear_it_again() -> None:
    first, second = hearing("one two", failure=Failure(after=1, calls=ALWAYS)), hearing("second")
    both = chain(first, second)
    with pytest.raises(ProviderError) as raised:
        await understood(both, pieces())
    assert raised.value.kind is FailureKind.BROKEN
    assert raised.value.retryable, "although what is broken is not tried again by itself"
    assert await understood(both, pieces(), earlier_failures=1) == "second"
    with pytest.raises(ProviderError):
        await understood(both, pieces(), earlier_failures=2)


async def test_who_is_alone_fails_as_it_fails() -> None:
    with pytest.raises(ProviderError) as raised:
        await understood(chain(hearing("one two", failure=Failure(after=1))), pieces())
    assert not raised.value.retryable


async def test_who_stands_still_in_the_middle_has_failed_when_another_could_go_on() -> None:
    both = chain(hearing("one two", failure=hanging(after=1)), hearing("second"))
    with pytest.raises(ProviderError, match="timeout") as raised:
        await understood(both, pieces(every_s=0.1))
    assert raised.value.retryable
    assert now_s() == pytest.approx(0.2 + LAST_RESULT_S / 2)


async def test_a_silent_speaker_is_waited_for() -> None:
    both = chain(hearing("first"), hearing("second"))
    assert await understood(both, pieces(5, every_s=100)) == "first"


async def test_the_last_result_is_waited_for_half_of_the_time_and_of_a_recording_longer() -> None:
    def slow(last_s: float) -> RecognitionChain:
        return chain(
            ScriptedRecognizer(texts=("first",), final_ms=int(last_s * 1000)), hearing("second")
        )

    with pytest.raises(ProviderError, match="timeout"):
        await understood(slow(LAST_RESULT_S / 2 + 1), pieces())
    assert await understood(slow(RECORDING_S - 1), pieces(), live=False) == "first"
    with pytest.raises(ProviderError, match="timeout"):
        await understood(slow(RECORDING_S + 1), pieces(), live=False)


async def test_who_is_alone_is_not_hurried() -> None:
    alone = chain(ScriptedRecognizer(texts=("first",), final_ms=60_000))
    assert await understood(alone, pieces()) == "first"


async def test_audio_that_breaks_the_recogniser_keeps_nobody_else_from_it() -> None:
    class Breaking:
        def __init__(self) -> None:
            self.asked = 0

        async def recognize(
            self, audio: AsyncIterator[bytes], options: RecognitionOptions
        ) -> AsyncIterator[Transcript]:
            self.asked += 1
            async for pcm in audio:
                if pcm != SPEECH_100_MS:
                    raise ProviderError("scripted", FailureKind.BROKEN, "as told", of_service=False)
            yield Transcript("one", 0, 100)

    async def bad() -> AsyncIterator[bytes]:
        yield b"bad"

    recognizer = Breaking()
    alone = chain(recognizer, policy=ServicePolicy(breaker_failures=2))
    for _ in range(5):
        with pytest.raises(ProviderError):
            await understood(alone, bad())
    assert recognizer.asked == 5
    assert await understood(alone, pieces()) == "one"


async def test_a_chain_keeps_the_providers_contract_itself() -> None:
    first = hearing("x", failure=Failure(calls=ALWAYS))
    await check_recognizer(
        chain(first, ScriptedRecognizer(texts=("one two",), final_ms=50)),
        SPEECH_100_MS * 10,
        silence_ms=0,
    )


# --- with the audio input -------------------------------------------------------------


class Listening:
    """An audio input with a recogniser, fed with numbered samples so that what a stream
    hears can be told apart.
    """

    def __init__(self, recognizer: SpeechRecognizer) -> None:
        self.events: list[Event] = []
        self.tasks = SessionTasks(on_fault=lambda: None)
        self.audio = AudioInput(
            recognizer,
            limits=SessionLimits(),
            now_ms=lambda: 0,
            post=self.events.append,
            tasks=self.tasks,
        )
        self.settings = InputSettings(format="pcm")

    def open(self, stream: int, replay_of: int | None = None) -> None:
        self.audio.open(OpenRecognition(stream, self.settings, replay_of))

    async def feed(self, stream: int, from_ms: int, to_ms: int, piece_ms: int = 100) -> None:
        self.audio.route(RouteAudio(Route.RECOGNISE, self.settings, stream))
        for start_ms in range(from_ms, to_ms, piece_ms):
            self.audio.push(numbered(start_ms, min(to_ms, start_ms + piece_ms)))
            await turns()


def numbered(from_ms: int, to_ms: int) -> bytes:
    """Audio in which every millisecond says which one it is."""
    return b"".join(ms.to_bytes(2, "little") * 16 for ms in range(from_ms, to_ms))


def heard_ms(pcm: bytes) -> list[int]:
    return [int.from_bytes(pcm[start : start + 2], "little") for start in range(0, len(pcm), 32)]


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Noting:
    """Notes what each stream hears, and does as ``acts`` of its number says after each
    piece: give, or fail.
    """

    def __init__(self, *acts: Callable[[int], Transcript | None]) -> None:
        self.heard: list[bytes] = []
        self.options: list[RecognitionOptions] = []
        self._acts = acts

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        number = len(self.heard)
        self.heard.append(b"")
        self.options.append(options)
        async for pcm in audio:
            self.heard[number] += pcm
            result = self._acts[number](len(self.heard[number]) // 32)
            if result is not None:
                yield result


def fails_at(
    at_ms: int, final: Transcript | None = None, final_at_ms: int = 0
) -> Callable[[int], Transcript | None]:
    finals = [] if final is None else [final]

    def act(ms: int) -> Transcript | None:
        if ms >= at_ms:
            raise ProviderError("noting", FailureKind.CONNECTIVITY, "as told")
        return finals.pop() if finals and ms >= final_at_ms else None

    return act


def listens(ms: int) -> Transcript | None:
    return None


@pytest.mark.parametrize("piece_ms", [100, 70, 20, 500])
async def test_a_replacement_hears_what_came_after_the_last_final_result_to_the_millisecond(
    piece_ms: int,
) -> None:
    final = Transcript("one", 0, 730)
    recognizer = Noting(fails_at(1_400, final, 900), listens)
    listening = Listening(recognizer)
    listening.open(1)
    await listening.feed(1, 0, 1_500, piece_ms)
    (failed,) = [event for event in listening.events if isinstance(event, RecognitionFailed)]
    assert failed.retryable
    listening.open(2, replay_of=1)
    await listening.feed(2, 1_500, 1_700)
    listening.audio.finish(2)
    await turns()
    assert heard_ms(recognizer.heard[1]) == list(range(730, 1_700)), (
        "without loss, and nothing twice"
    )
    assert recognizer.options[1].earlier_failures == 1
    assert isinstance(listening.events[-1], RecognitionEnded)


async def test_the_times_of_a_replacement_stand_on_the_same_line() -> None:
    def tells(ms: int) -> Transcript | None:
        return Transcript("two", 100, 300) if ms == 770 else None

    listening = Listening(Noting(fails_at(1_500, Transcript("one", 0, 730), 900), tells))
    listening.open(1)
    await listening.feed(1, 0, 1_500)
    listening.open(2, replay_of=1)
    await turns()
    told = [event.transcript for event in listening.events if isinstance(event, Transcribed)]
    assert [(found.text, found.begin_ms, found.end_ms) for found in told] == [
        ("one", 0, 730),
        ("two", 830, 1_030),
    ]


async def test_the_replacement_is_another_recogniser() -> None:
    first, second = Noting(fails_at(500), fails_at(0)), Noting(listens)
    listening = Listening(chain(first, second))
    listening.open(1)
    await listening.feed(1, 0, 500)
    listening.open(2, replay_of=1)
    await listening.feed(2, 500, 800)
    listening.audio.finish(2)
    await turns()
    assert len(first.heard) == 1
    assert heard_ms(second.heard[0]) == list(range(800))
    listening.open(3)
    await listening.feed(3, 800, 900)
    assert len(first.heard) == 2, "the next utterance begins with the first again"
    await listening.tasks.close(1)


async def test_of_silence_only_the_end_is_heard_again() -> None:
    recognizer = Noting(fails_at(30_000), listens)
    listening = Listening(recognizer)
    listening.open(1)
    await listening.feed(1, 0, 30_000, 500)
    listening.open(2, replay_of=1)
    listening.audio.finish(2)
    await turns()
    assert heard_ms(recognizer.heard[1]) == list(range(20_000, 30_000))
