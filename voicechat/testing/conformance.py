"""Conformance tests for providers: one call for each kind checks the contract of
`voicechat.providers.interfaces`.

    async def test_my_synthesizer() -> None:
        await check_synthesizer(my_synthesizer)

Each check raises ``AssertionError`` with the name of the failed check and what was
observed. Pass a started provider that works; it is left open. Failures of the
provider's own service can only be simulated by its own tests, with `check_fails` and
`check_probe_fails`. Open and close the provider within `leaving_nothing` to detect
leaks.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    AudioChunk,
    ChatModel,
    ChatRequest,
    EmbeddingRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    SpeechRecognizer,
    SpeechSynthesizer,
    TextDelta,
    TextEmbedder,
    VoiceOptions,
)
from voicechat.providers.wrapping import as_provider, as_synthesizer
from voicechat.runtime.provider_deadlines import closing
from voicechat.session.types import Transcript
from voicechat.testing.conformance_checks import Subject, check_all, require
from voicechat.testing.leak_check import held_resources, tracking_tasks, wait_for_release

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000
DEADLINE_S = 60.0
"""The timeout of one check."""
SETTLE_S = 2.0
"""Time for threads and child processes to end after they were asked to."""
LATE_MS = 100
"""Tolerance for the end of a sentence beyond the audio: recognisers count in frames."""

SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody knows why it should."
_UNSPEAKABLE = {
    "an empty text": "",
    "blanks": " \n\t ",
    "punctuation": "...",
    "Chinese punctuation": "。！",
}
_AWKWARD = {
    "a long word": "a" * 2_000,
    "control characters": "one\x00two\x1b[31m three\u202e",
    "half a character": "one \ud83d two",
    "many scripts": "Ünïcødé 你好 привет مرحبا 🙂",
    "markup": "<speak>& <b>one</b> {two} %s \\n",
}
_ASKED = ChatRequest(messages=({"role": "user", "content": "Say hello."},))


class Probed(Protocol):
    """A provider that can check whether its service works."""

    async def probe(self) -> None:
        """Raise ``ProviderError`` unless the service works."""


async def check_embedder(embedder: TextEmbedder, *, deadline_s: float = DEADLINE_S) -> None:
    """Run every check. Vectors must be of length 1, in the order of their texts, and
    the same for the same text whatever is embedded beside it.
    """

    async def embed(*texts: str, **more: Any) -> npt.NDArray[np.float32]:
        async with asyncio.timeout(deadline_s):
            vectors = (await embedder.embed(EmbeddingRequest(texts=texts, **more))).vectors
        require(vectors.dtype == np.float32, f"the vectors are {vectors.dtype}, not float32")
        require(len(vectors) == len(texts), f"{len(vectors)} vectors for {len(texts)} texts")
        lengths = np.linalg.norm(vectors, axis=1)
        require(bool(np.allclose(lengths, 1, atol=1e-3)), "a vector is not of length 1")
        return vectors

    async def use() -> AsyncIterator[npt.NDArray[np.float32]]:
        yield await embed(SENTENCE, "你好，世界。")

    def awkward(text: str) -> Callable[[], AsyncIterator[npt.NDArray[np.float32]]]:
        async def embedded() -> AsyncIterator[npt.NDArray[np.float32]]:
            yield await embed(text)

        return embedded

    require(bool(embedder.identity), "identity is empty")
    require(embedder.longest_batch >= 1, "longest_batch is less than 1")
    texts = [f"text number {number}" for number in range(min(embedder.longest_batch, 8))]
    together = await embed(*texts)
    alone = np.concatenate([await embed(text) for text in texts])
    require(
        bool(np.allclose(together, alone, atol=1e-2)),
        "a text has another vector alone than beside others, or the order is wrong",
    )
    require(
        (await embed(SENTENCE, purpose="query")).shape[1] == together.shape[1],
        "questions have vectors of another length than passages",
    )
    await check_all(
        Subject(
            use=use,
            judge=lambda made: require(len(made) == 1, "the request was not answered once"),
            awkward={name: awkward(text) for name, text in {**_UNSPEAKABLE, **_AWKWARD}.items()},
            deadline_s=deadline_s,
        )
    )


async def check_recognizer(
    recognizer: SpeechRecognizer,
    speech_pcm: bytes,
    *,
    at_once: int = 3,
    silence_ms: int = 2_000,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Run every check. ``speech_pcm`` is s16le mono 16 kHz speech that the recogniser
    understands.

    ``at_once`` is the number of concurrent streams that it is configured for.
    ``silence_ms`` is the length of digital silence in which nothing may be recognised;
    0 skips that check.
    """
    options = RecognitionOptions()
    length_ms = len(speech_pcm) // BYTES_PER_MS

    def recognise(pcm: bytes, piece_bytes: int = 100 * BYTES_PER_MS) -> AsyncIterator[Transcript]:
        return recognizer.recognize(_pieces(pcm, piece_bytes), options)

    def judge(results: list[Transcript]) -> None:
        _judge_transcripts(results, length_ms)
        require(
            any(result.text.strip() for result in results), "nothing was understood of the speech"
        )

    noise = bytes(range(256)) * (BYTES_PER_MS * 500 // 256)
    silent = {
        "no audio": lambda: recognise(b""),
        "empty pieces": lambda: recognizer.recognize(_empty(), options),
    }
    if silence_ms:
        silent["silence"] = lambda: recognise(bytes(silence_ms * BYTES_PER_MS))
    await check_all(
        Subject(
            use=lambda: recognise(speech_pcm),
            judge=judge,
            variants={
                "speech in one piece": lambda: recognise(speech_pcm, max(2, len(speech_pcm))),
                "speech in pieces of 10 ms": lambda: recognise(speech_pcm, 10 * BYTES_PER_MS),
            },
            waiting=lambda: recognizer.recognize(_endless(speech_pcm), options),
            silent=silent,
            awkward={
                "noise": lambda: recognise(noise),
                "a single sample": lambda: recognise(b"\x00\x01"),
                "telephone speech": lambda: recognizer.recognize(
                    _pieces(speech_pcm, 640), RecognitionOptions(source_rate_hz=8000)
                ),
            },
            probe=_probe_of(recognizer),
            at_once=at_once,
            deadline_s=deadline_s,
        )
    )


def _probe_of(service: object) -> Callable[[], Awaitable[None]] | None:
    provider = as_provider(service)
    return provider.probe if provider.has_probe else None


async def check_chat_model(
    model: ChatModel,
    request: ChatRequest = _ASKED,
    *,
    at_once: int = 3,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Run every check. ``request`` must be answered with text."""

    def judge(parts: list[ReplyPart]) -> None:
        _judge_reply(parts)
        require(
            any(isinstance(part, TextDelta) and part.text for part in parts),
            "the reply has no text",
        )

    def asked(*messages: dict[str, object], **options: object) -> AsyncIterator[ReplyPart]:
        return model.reply(ChatRequest(messages=messages, options=options))

    await check_all(
        Subject(
            use=lambda: model.reply(request),
            judge=judge,
            awkward={
                "no messages": asked,
                "no content": lambda: asked({"role": "user", "content": ""}),
                "content that is null": lambda: asked({"role": "user", "content": None}),
                "content in parts": lambda: asked(
                    {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
                ),
                "an unknown option": lambda: asked(
                    {"role": "user", "content": "Hello"}, option_of_nobody={"a": [1]}
                ),
                "an option that is no JSON": lambda: asked(
                    {"role": "user", "content": "Hello"}, odd=object()
                ),
            }
            | {
                name: partial(asked, {"role": "user", "content": text})
                for name, text in _AWKWARD.items()
            },
            probe=_probe_of(model),
            at_once=at_once,
            deadline_s=deadline_s,
        )
    )


async def check_synthesizer(
    synthesizer: SpeechSynthesizer,
    text: str = SENTENCE,
    *,
    at_once: int = 3,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Run every check. ``text`` is a sentence that the synthesiser can speak with its
    default voice.
    """
    voices: object = synthesizer.voices
    if not isinstance(voices, tuple) or not voices or not all(voices):
        raise AssertionError(f"voices: no tuple of names: {voices!r}")
    require(len(set(voices)) == len(voices), "voices: a name stands there twice")

    def speak(text: str, voice: str = "", speech_rate: float = 1.0) -> AsyncIterator[AudioChunk]:
        return synthesizer.synthesize(text, VoiceOptions(voice=voice, speech_rate=speech_rate))

    def judge(chunks: list[AudioChunk]) -> None:
        _judge_audio(chunks)
        require(any(any(chunk.pcm) for chunk in chunks), "the sentence gave no sound")

    variants = {f"voice {name!r}": partial(speak, text, name) for name in (voices[0], voices[-1])}
    if as_synthesizer(synthesizer).shapes_prosody(1.2, 1.0):
        variants["speech_rate 1.2"] = partial(speak, text, speech_rate=1.2)
    await check_all(
        Subject(
            use=lambda: speak(text),
            judge=judge,
            variants=variants,
            silent={name: partial(speak, text) for name, text in _UNSPEAKABLE.items()},
            awkward={name: partial(speak, text) for name, text in _AWKWARD.items()}
            | {"an unknown voice": partial(speak, text, "voice-of-nobody")},
            probe=_probe_of(synthesizer),
            at_once=at_once,
            deadline_s=deadline_s,
        )
    )


async def check_fails(
    items: AsyncIterator[object], kind: FailureKind | None = None, *, deadline_s: float = DEADLINE_S
) -> ProviderError:
    """Consume ``items`` of a provider whose service is broken. It must raise
    ``ProviderError`` (of ``kind``) within ``deadline_s`` and leave no task.

    Returns the error.
    """

    async def use() -> ProviderError:
        try:
            async with asyncio.timeout(deadline_s), closing(items):
                async for _ in items:
                    pass
        except ProviderError as error:
            return error
        except TimeoutError:
            raise AssertionError(f"it did not fail within {deadline_s:g} s") from None
        except Exception as error:
            raise AssertionError(
                f"it raised {type(error).__name__} instead of ProviderError"
            ) from error
        raise AssertionError("it did not fail")

    with tracking_tasks() as watch:
        error = await watch.start_task(use())
        await asyncio.sleep(0)
        require(not watch.left, f"tasks are left after the failure: {watch.left}")
    require(kind is None or error.kind is kind, f"it failed as {error.kind}, not as {kind}")
    return error


async def check_probe_fails(
    provider: Probed, kind: FailureKind | None = None, *, deadline_s: float = DEADLINE_S
) -> ProviderError:
    """Probe a provider whose service is broken; otherwise like `check_fails`."""

    async def probing() -> AsyncIterator[None]:
        await provider.probe()
        yield

    return await check_fails(probing(), kind, deadline_s=deadline_s)


@asynccontextmanager
async def leaving_nothing(settle_s: float = SETTLE_S) -> AsyncIterator[None]:
    """Check that the body leaves no task, socket, thread or child process behind. Open,
    use and close a provider in it.
    """
    tasks, before = asyncio.all_tasks(), held_resources()
    yield
    now = await wait_for_release(before, settle_s)
    left = [task.get_name() for task in asyncio.all_tasks() - tasks]
    require(not left, f"leaving nothing: tasks are left after closing: {sorted(left)}")
    require(
        not now.excess_over(before),
        f"leaving nothing: left after closing: {now.excess_over(before)}",
    )


# --- the form of results --------------------------------------------------------------


def _judge_transcripts(results: list[Transcript], length_ms: int) -> None:
    before: Transcript | None = None
    for result in results:
        require(isinstance(result, Transcript), f"{type(result).__name__} is no Transcript")
        _judge_times(result, length_ms)
        if before is not None and not before.final:
            again = not result.final and result.text == before.text
            require(not again, "a partial result came again although its text had not changed")
        if before is not None and before.final:
            require(
                result.begin_ms >= before.begin_ms,
                "a sentence begins before the one that came before it",
            )
        before = result
    require(before is None or before.final, "the last sentence was not closed by a final result")
    ends = [result.end_ms for result in results if result.end_ms is not None]
    require(ends == sorted(ends), "the sentences do not end in order")


def _judge_times(result: Transcript, length_ms: int) -> None:
    end_ms = result.end_ms if result.end_ms is not None else length_ms
    require(
        0 <= result.begin_ms <= end_ms + LATE_MS,
        f"a sentence's times are out of order: {result.begin_ms}",
    )
    require(
        end_ms <= length_ms + LATE_MS,
        f"a sentence ends at {end_ms} ms, but the audio at {length_ms} ms",
    )
    require(
        all(word.begin_ms <= word.end_ms for word in result.words), "a word ends before it begins"
    )
    in_order = all(one.begin_ms <= other.begin_ms for one, other in pairwise(result.words))
    require(in_order, "the words of a sentence are out of order")


def _judge_reply(parts: list[ReplyPart]) -> None:
    for part in parts:
        require(
            isinstance(part, get_args(ReplyPart)), f"{type(part).__name__} is no part of a reply"
        )
    finished = [number for number, part in enumerate(parts) if isinstance(part, ReplyFinished)]
    require(len(finished) <= 1, "ReplyFinished came more than once")
    require(not finished or finished[0] == len(parts) - 1, "something came after ReplyFinished")


def _judge_audio(chunks: list[AudioChunk]) -> None:
    for chunk in chunks:
        require(isinstance(chunk, AudioChunk), f"{type(chunk).__name__} is no AudioChunk")
        require(len(chunk.pcm) % 2 == 0, f"a chunk of {len(chunk.pcm)} bytes: samples have two")
        require(8000 <= chunk.rate_hz <= 192_000, f"a sample rate of {chunk.rate_hz} Hz")
    rates = sorted({chunk.rate_hz for chunk in chunks})
    require(len(rates) <= 1, f"one synthesis came at several rates: {rates}")


# --- audio ----------------------------------------------------------------------------


async def _pieces(pcm: bytes, piece_bytes: int) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), piece_bytes):
        yield pcm[start : start + piece_bytes]


async def _empty() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b""


async def _endless(pcm: bytes) -> AsyncIterator[bytes]:
    """Yield speech, then wait without an end, like an open microphone without input."""
    async for piece in _pieces(pcm, 100 * BYTES_PER_MS):
        yield piece
    await asyncio.Event().wait()
