"""The suite passes good providers and finds what is wrong with bad ones. Ours pass it
in ``tests/providers``.
"""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.builtin import open_chat_model
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    VoiceOptions,
)
from voicechat.session.types import Transcript, Word
from voicechat.testing.conformance import (
    check_chat_model,
    check_fails,
    check_probe_fails,
    check_recognizer,
    check_synthesizer,
    leaving_nothing,
)
from voicechat.testing.scripted import (
    Failure,
    ScriptedModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)

SPEECH = b"\x00\x10" * 16_000
ONE = AudioChunk(b"\x00\x10" * 100, 16_000)

Spoken = Callable[[str], AsyncIterator[AudioChunk]]
Said = Callable[[], AsyncIterator[ReplyPart]]
Heard = Callable[[AsyncIterator[bytes]], AsyncIterator[Transcript]]


async def test_scripted_providers_pass() -> None:
    async with leaving_nothing():
        await check_recognizer(
            ScriptedRecognizer(texts=("one two three",), final_ms=50), SPEECH, silence_ms=0
        )
        await check_chat_model(ScriptedModel(first_ms=100, delta_ms=40))
        await check_synthesizer(
            ScriptedSynthesizer(first_ms=60, silent=lambda text: not any(map(str.isalnum, text)))
        )


async def test_the_embedded_model_passes() -> None:
    async with leaving_nothing():
        await check_chat_model(open_chat_model())


# --- synthesisers that break one promise each -----------------------------------------


@dataclass
class Voice:
    speak: Spoken
    voices: tuple[str, ...] = ("a",)

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        return self.speak(text) if any(map(str.isalnum, text)) else nothing()


async def nothing() -> AsyncIterator[Any]:
    return
    yield


async def two_chunks(text: str) -> AsyncIterator[AudioChunk]:
    yield ONE
    await asyncio.sleep(0.01)
    yield ONE


async def odd_bytes(text: str) -> AsyncIterator[AudioChunk]:
    yield AudioChunk(b"\x00\x10\x00", 16_000)


async def two_rates(text: str) -> AsyncIterator[AudioChunk]:
    yield ONE
    yield AudioChunk(ONE.pcm, 22_050)


async def no_sound(text: str) -> AsyncIterator[AudioChunk]:
    yield AudioChunk(bytes(200), 16_000)


async def foreign_error(text: str) -> AsyncIterator[AudioChunk]:
    text.encode()  # half a character: UnicodeEncodeError
    yield ONE


async def refuses_long_ones(text: str) -> AsyncIterator[AudioChunk]:
    if len(text) > 1_000:
        raise ValueError("too long")
    yield ONE


async def leaks_a_task(text: str) -> AsyncIterator[AudioChunk]:
    kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(5), name="leaked"))
    yield ONE
    yield ONE


kept: list[Any] = []


async def closes_slowly(text: str) -> AsyncIterator[AudioChunk]:
    try:
        yield ONE
        yield ONE
    finally:
        await asyncio.sleep(0.5)


async def fails_to_close(text: str) -> AsyncIterator[AudioChunk]:
    try:
        yield ONE
        yield ONE
    finally:
        raise ConnectionError("closing failed")


async def goes_on_when_cancelled(text: str) -> AsyncIterator[AudioChunk]:
    yield ONE
    try:
        await asyncio.sleep(0.5)
    except asyncio.CancelledError:
        yield ONE


async def cancelled_into_an_error(text: str) -> AsyncIterator[AudioChunk]:
    yield ONE
    try:
        await asyncio.sleep(0.5)
    except asyncio.CancelledError as error:
        raise ProviderError("bad", FailureKind.BROKEN, "cancelled") from error


class YieldsAfterClose:
    def __aiter__(self) -> "YieldsAfterClose":
        return self

    def __init__(self, text: str) -> None:
        self.left = 2

    async def __anext__(self) -> AudioChunk:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return ONE

    async def aclose(self) -> None:
        pass


class CannotBeClosed(YieldsAfterClose):
    aclose = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "aclose":
            raise AttributeError(name)
        return super().__getattribute__(name)


def one_at_a_time() -> Spoken:
    busy = [False]

    async def speak(text: str) -> AsyncIterator[AudioChunk]:
        if busy[0]:
            raise ProviderError("bad", FailureKind.RATE_LIMIT, "busy")
        busy[0] = True
        try:
            async for chunk in two_chunks(text):
                yield chunk
        finally:
            busy[0] = False

    return speak


async def never_ends(text: str) -> AsyncIterator[AudioChunk]:
    yield ONE
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("speak", "check"),
    [
        (odd_bytes, "is well formed: a chunk of 3 bytes"),
        (two_rates, "is well formed: one synthesis came at several rates"),
        (no_sound, "is well formed: the sentence gave no sound"),
        (CannotBeClosed, "is well formed: the output iterator has no aclose"),
        (
            foreign_error,
            "raises only ProviderError: half a character: it raised UnicodeEncodeError",
        ),
        (refuses_long_ones, "raises only ProviderError: a long word: it raised ValueError"),
        (leaks_a_task, "closes at once: closing left tasks: .*sleep"),
        (closes_slowly, "closes at once: closing waited for something"),
        (fails_to_close, "it raised ConnectionError"),
        (YieldsAfterClose, "closes at once: it gave an item after it was closed"),
        (goes_on_when_cancelled, "cancels at once: it went on although it was cancelled"),
        (cancelled_into_an_error, "cancels at once: cancelling: it raised ProviderError"),
        (one_at_a_time(), "serves several at once: of 3 uses at once one raised ProviderError"),
        (never_ends, "is well formed: it did not end within 60 s"),
    ],
)
async def test_a_bad_synthesizer_fails_the_check_that_names_it(speak: Spoken, check: str) -> None:
    with pytest.raises(AssertionError, match=check):
        await check_synthesizer(Voice(speak))
    for task in kept:
        task.cancel()
    kept.clear()


async def test_a_synthesizer_that_keeps_the_promises_passes() -> None:
    await check_synthesizer(Voice(two_chunks))


async def test_a_synthesizer_that_speaks_nothing_aloud_fails() -> None:
    @dataclass
    class Chatterbox(Voice):
        def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
            return two_chunks(text)

    with pytest.raises(AssertionError, match="is silent on nothing: an empty text gave 2 items"):
        await check_synthesizer(Chatterbox(two_chunks))


@pytest.mark.parametrize("voices", [(), ("a", "a"), ["a"], ("",)])
async def test_voices_are_names(voices: Any) -> None:
    with pytest.raises(AssertionError, match="voices: "):
        await check_synthesizer(Voice(two_chunks, voices))


# --- what only the system knows -------------------------------------------------------


@pytest.mark.real_time
@pytest.mark.parametrize("what", ["sockets", "threads", "child processes"])
async def test_what_grows_with_every_use_is_found(what: str) -> None:
    held: list[Any] = []
    end = threading.Event()

    def take() -> None:
        if what == "sockets":
            held.append(socket.socket())
        elif what == "threads":
            held.append(threading.Thread(target=end.wait))
            held[-1].start()
        else:
            held.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    async def speak(text: str) -> AsyncIterator[AudioChunk]:
        take()
        yield ONE

    try:
        with pytest.raises(AssertionError, match=f"leaves nothing: after 12 uses .* {what}"):
            await check_synthesizer(Voice(speak))
        with pytest.raises(AssertionError, match="leaving nothing: left after closing: 1 "):
            async with leaving_nothing(0.05):
                take()
    finally:
        end.set()
        for one in held:
            if isinstance(one, subprocess.Popen):
                one.communicate()
            elif isinstance(one, socket.socket):
                one.close()
            else:
                one.join()


async def test_a_task_that_is_left_after_closing_is_found() -> None:
    with pytest.raises(
        AssertionError, match=r"leaving nothing: tasks are left after closing: \['stray'\]"
    ):
        async with leaving_nothing(0.05):
            task = asyncio.get_running_loop().create_task(asyncio.sleep(1), name="stray")
    await task


# --- chat models ----------------------------------------------------------------------


@dataclass
class Mouth:
    say: Said

    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        return self.say()


async def finishes_twice() -> AsyncIterator[ReplyPart]:
    yield TextDelta("a")
    yield ReplyFinished()
    yield ReplyFinished()


async def goes_on_after_the_end() -> AsyncIterator[ReplyPart]:
    yield ReplyFinished()
    yield TextDelta("a")


async def without_text() -> AsyncIterator[ReplyPart]:
    yield TextDelta("")
    yield ReplyFinished()


async def strings() -> AsyncIterator[Any]:
    yield "a"


@pytest.mark.parametrize(
    ("say", "check"),
    [
        (finishes_twice, "is well formed: ReplyFinished came more than once"),
        (goes_on_after_the_end, "is well formed: something came after ReplyFinished"),
        (without_text, "is well formed: the reply has no text"),
        (strings, "is well formed: str is no part of a reply"),
    ],
)
async def test_a_bad_model_fails_the_check_that_names_it(say: Said, check: str) -> None:
    with pytest.raises(AssertionError, match=check):
        await check_chat_model(Mouth(say))


# --- recognisers ----------------------------------------------------------------------


@dataclass
class Ear:
    hear: Heard

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        return self.hear(audio)


@dataclass
class Results:
    """Gives the same results whatever it hears, if there is sound in it."""

    results: list[Transcript] = field(default_factory=list)

    async def __call__(self, audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
        sound = False
        async for pcm in audio:
            sound |= any(pcm)
        if sound:
            for result in self.results:
                yield result


HALF, WHOLE = Transcript("one", 0), Transcript("one two", 0, 500)
NEXT = Transcript("three", 600, 900)


async def hears_silence(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
    async for _ in audio:
        pass
    yield WHOLE


async def reads_on_behind_the_scenes(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
    async def read() -> bool:
        return any([any(pcm) async for pcm in audio])

    reading = asyncio.get_running_loop().create_task(read())
    kept.append(reading)
    if await asyncio.shield(reading):
        yield WHOLE


@pytest.mark.parametrize(
    ("hear", "check"),
    [
        (Results([HALF, HALF, WHOLE]), "is well formed: a partial result came again"),
        (Results([HALF]), "is well formed: the last sentence was not closed"),
        (Results([WHOLE, HALF]), "is well formed: the last sentence was not closed"),
        (Results([NEXT, WHOLE]), "is well formed: a sentence begins before the one"),
        (
            Results([Transcript("one", 0, 900), Transcript("two", 100, 800)]),
            "is well formed: .* do not end in order",
        ),
        (
            Results([Transcript("one", 0, 9_000)]),
            "is well formed: a sentence ends at 9000 ms, but the audio at 1000",
        ),
        (
            Results([Transcript("one", 700, 500)]),
            "is well formed: a sentence's times are out of order",
        ),
        (
            Results([Transcript("a", 0, 500, (Word("a", 5, 1),))]),
            "is well formed: a word ends before it begins",
        ),
        (
            Results([Transcript("a b", 0, 500, (Word("a", 5, 6), Word("b", 1, 2)))]),
            "is well formed: the words of a sentence are out of order",
        ),
        (Results([]), "is well formed: nothing was understood"),
        (hears_silence, "is silent on nothing: no audio gave 1 items"),
        (reads_on_behind_the_scenes, "cancels at once: cancelling left tasks: .*read"),
    ],
)
async def test_a_bad_recognizer_fails_the_check_that_names_it(hear: Heard, check: str) -> None:
    with pytest.raises(AssertionError, match=check):
        await check_recognizer(Ear(hear), SPEECH)
    for task in kept:
        task.cancel()
    kept.clear()


async def test_a_recognizer_that_keeps_the_promises_passes() -> None:
    await check_recognizer(Ear(Results([HALF, WHOLE, NEXT])), SPEECH)


# --- probes ---------------------------------------------------------------------------

Probe = Callable[[], Awaitable[None]]


@dataclass
class ProbedModel(ScriptedModel):
    asks: Probe = field(kw_only=True)

    async def probe(self) -> None:
        await self.asks()


async def answers() -> None:
    await asyncio.sleep(0.01)


async def says_no() -> None:
    raise ProviderError("bad", FailureKind.CONNECTIVITY, "not today")


async def raises_a_foreign_error() -> None:
    raise ConnectionRefusedError


async def leaves_a_task() -> None:
    kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(5), name="leaked"))


async def lingers() -> None:
    try:
        await asyncio.sleep(0.01)
    finally:
        await asyncio.sleep(0.5)


async def keeps_a_socket() -> None:
    kept.append(socket.socket())


@pytest.mark.parametrize(
    ("asks", "check"),
    [
        (says_no, "answers its probe: it failed although the service works: .*not today"),
        (raises_a_foreign_error, "answers its probe: it raised ConnectionRefusedError"),
        (leaves_a_task, "answers its probe: tasks are left when a probe has ended"),
        (lingers, "answers its probe: cancelling waited for something"),
        (keeps_a_socket, r"answers its probe: after \d+ probes \d+ more sockets are open"),
    ],
)
async def test_a_bad_probe_fails_the_check(asks: Probe, check: str) -> None:
    with pytest.raises(AssertionError, match=check):
        await check_chat_model(ProbedModel(asks=asks), deadline_s=120)
    for thing in kept:
        if isinstance(thing, socket.socket):
            thing.close()
        else:
            thing.cancel()
    kept.clear()


async def test_a_probe_of_any_kind_of_provider_is_asked() -> None:
    await check_chat_model(ProbedModel(asks=answers))
    voice = Voice(two_chunks)
    ear = Ear(Results([HALF, WHOLE, NEXT]))
    for provider in (voice, ear):
        provider.probe = says_no  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match="answers its probe"):
        await check_synthesizer(voice)
    with pytest.raises(AssertionError, match="answers its probe"):
        await check_recognizer(ear, SPEECH)


async def test_a_failing_probe_is_checked_too() -> None:
    assert (
        await check_probe_fails(ProbedModel(asks=says_no), FailureKind.CONNECTIVITY)
    ).provider == "bad"
    with pytest.raises(AssertionError, match="it did not fail"):
        await check_probe_fails(ProbedModel(asks=answers))
    with pytest.raises(AssertionError, match="it raised ConnectionRefusedError instead"):
        await check_probe_fails(ProbedModel(asks=raises_a_foreign_error))


# --- failing as one should ------------------------------------------------------------


async def test_failing_is_checked_too() -> None:
    broken = ScriptedModel(failure=Failure(after=1, kind=FailureKind.TIMEOUT))
    assert (
        await check_fails(broken.reply(ChatRequest(messages=())), FailureKind.TIMEOUT)
    ).provider == "scripted"
    broken.failure.calls = 1
    with pytest.raises(
        AssertionError, match=r"failed as FailureKind.TIMEOUT, not as FailureKind.BROKEN"
    ):
        await check_fails(broken.reply(ChatRequest(messages=())), FailureKind.BROKEN)
    with pytest.raises(AssertionError, match="it did not fail"):
        await check_fails(broken.reply(ChatRequest(messages=())))
    with pytest.raises(AssertionError, match="did not fail within 1 s"):
        await check_fails(never_ends(""), deadline_s=1)
    with pytest.raises(AssertionError, match="it raised UnicodeEncodeError instead"):
        await check_fails(foreign_error("\ud83d"))
