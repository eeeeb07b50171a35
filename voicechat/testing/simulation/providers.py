"""Providers that understand what simulated clients say, and fail as they are told.

Words are numbers, and speech is samples whose value is the number of the word that is
spoken. So each recogniser stream, each request to a model and each sentence names the
turn that it belongs to, and with it what becomes of it. A synthesiser speaks a sentence
as samples of one value, too, from which the client knows what it hears.
"""

import asyncio
import re
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from random import Random
from typing import Any, cast

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    AudioChunk,
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    VoiceOptions,
)
from voicechat.session.types import Message, Transcript, Word
from voicechat.testing.simulation.scenario import LAST_HEAD, Turn

WORD_MS = 200
"""How long a word is spoken."""
WORD_BYTES = PCM_RATE_HZ * 2 * WORD_MS // 1000
_STEP_MS = 40
_STEP_SAMPLES = PCM_RATE_HZ * _STEP_MS // 1000
_HEARD_STEPS = 3
"""A word is heard once its value has lasted for three steps."""
CHARACTER_MS = 20
"""How long the synthesiser takes for a character."""
_FIRST_VOICE_VALUE = 100
_WORD = re.compile(r"\bw(\d+)\b")


def word_pcm(word: int) -> bytes:
    """Return the speech of one word: s16le mono at 16 kHz."""
    return struct.pack("<h", word) * (WORD_BYTES // 2)


@lru_cache(1024)
def reply_sentences(text: str) -> tuple[str, ...]:
    """Return what the model answers to a text of the user. Each sentence names the
    utterance.
    """
    head = head_of(text)
    more = Random(text).choice((0, 0, 1, 1, 2, 4))
    sentences = [f"You said {len(text.split())} words after w{head}."]
    sentences += [f"This is number {number} for w{head}." for number in range(more)]
    return tuple(sentences)


def reply_text(text: str) -> str:
    """Return the whole answer of the model."""
    return " ".join(reply_sentences(text))


class ProviderStage:
    """What the providers of a scenario share: what becomes of each use, and what was
    asked.
    """

    def __init__(self, turns: Mapping[int, Turn]) -> None:
        """``turns`` by their heads."""
        self._turns = turns
        self._uses: Counter[tuple[str, int]] = Counter()
        self.open = 0
        """How many streams have not ended."""
        self.on_request: Callable[[int, tuple[Message, ...]], None] = lambda _head, _messages: None
        """Called with the head of the user's last message and all messages when a model
        is asked.
        """
        self.spoken_s: dict[int, float] = {}
        """When the last piece of speech about an utterance was made, by its head."""
        self._values: dict[str, int] = {}
        self._sentences: dict[int, str] = {}

    def fate(self, service: str, head: int) -> str:
        """Return what becomes of the next use of a service for an utterance."""
        turn = self._turns.get(head)
        if turn is None:
            return "fine"
        fates: tuple[str, ...] = getattr(turn, service)
        use = self._uses[service, head]
        self._uses[service, head] += 1
        return fates[use] if use < len(fates) else "fine"

    def uses(self, service: str, head: int) -> int:
        """Return how often a service was used for an utterance."""
        return self._uses[service, head]

    def voice_value(self, sentence: str) -> int:
        """Return the value of the samples with which a sentence is spoken."""
        value = self._values.get(sentence)
        if value is None:
            value = self._values[sentence] = _FIRST_VOICE_VALUE + len(self._values) % 30_000
            self._sentences[value] = sentence
        return value

    def sentence_of(self, value: int) -> str:
        """Return the sentence that is spoken with this value; empty for none."""
        return self._sentences.get(value, "")


class _WordReader:
    """Hears words in samples."""

    def __init__(self) -> None:
        self._rest = b""
        self._value = 0
        self._steps = 0
        self.ms = 0
        """How much was heard."""

    def read(self, pcm: bytes) -> Iterator[tuple[int, int]]:
        """Yield each word, and 0 for each step of silence, with its begin in ms."""
        pcm = self._rest + pcm
        whole = len(pcm) // (_STEP_SAMPLES * 2) * _STEP_SAMPLES * 2
        self._rest = pcm[whole:]
        samples = memoryview(pcm)[:whole].cast("h")
        for value in samples[_STEP_SAMPLES // 2 :: _STEP_SAMPLES].tolist():
            if value == self._value:
                self._steps += 1
            else:
                self._value, self._steps = value, 1
            self.ms += _STEP_MS
            if value == 0:
                yield 0, self.ms - _STEP_MS
            elif self._steps == _HEARD_STEPS:
                yield value, self.ms - _HEARD_STEPS * _STEP_MS


def _word(value: int, begin_ms: int) -> Word:
    return Word(f"w{value}", begin_ms, begin_ms + WORD_MS)


def _failure(kind: FailureKind) -> ProviderError:
    return ProviderError("simulated", kind, "as planned")


async def _forever() -> None:
    await asyncio.Event().wait()


PAUSE_MS = 400
"""A silence of this length ends a sentence of the recogniser."""


class SimulatedRecognizer:
    """Hears the words of simulated clients."""

    def __init__(self, stage: ProviderStage) -> None:
        self._stage = stage

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Recognise one stream. What becomes of it is decided by its first head."""
        self._stage.open += 1
        try:
            async for result in self._recognize(audio):
                yield result
        finally:
            self._stage.open -= 1

    async def _recognize(self, audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
        reader = _WordReader()
        words: list[Word] = []
        silent_ms, fate = 0, ""
        async for pcm in audio:
            heard = len(words)
            for value, begin_ms in reader.read(pcm):
                if value == 0:
                    silent_ms += _STEP_MS
                    if silent_ms >= PAUSE_MS and words:
                        yield _final(words)
                        words, heard = [], 0
                    continue
                silent_ms = 0
                if not fate and value <= LAST_HEAD:
                    fate = self._stage.fate("recognizer", value)
                    if fate == "fails":
                        raise _failure(FailureKind.CONNECTIVITY)
                words.append(_word(value, begin_ms))
                if fate == "breaks" and len(words) == 2:
                    raise _failure(FailureKind.BROKEN)
            if len(words) > heard:
                yield Transcript(
                    " ".join([word.text for word in words]), words[0].begin_ms, None, tuple(words)
                )
            if fate == "hangs":
                await _forever()
            elif fate == "stops":
                return
            elif fate == "garbage":
                yield cast(Any, object())
        if fate == "slow":
            await asyncio.sleep(2.5)
        if words:
            yield _final(words)


def _final(words: list[Word]) -> Transcript:
    text = " ".join([word.text for word in words])
    return Transcript(text, words[0].begin_ms, words[-1].end_ms, tuple(words))


def last_user_text(messages: tuple[Message, ...]) -> str:
    """Return what the user has said last. What was not answered stands in the same
    message, in the lines before.
    """
    for message in reversed(messages):
        if message["role"] == "user":
            return text_of(message).rpartition("\n")[2]
    return ""


def text_of(message: Message) -> str:
    """Return the text of a message."""
    content = message["content"]
    if isinstance(content, list):
        return " ".join([part.get("text", "") for part in content])
    return str(content or "")


def head_of(text: str) -> int:
    """Return the number of the first head that a text names; 0 for none."""
    for found in _WORD.finditer(text):
        if int(found[1]) <= LAST_HEAD:
            return int(found[1])
    return 0


class SimulatedModel:
    """Answers ``reply_text`` of the user's last message."""

    def __init__(self, stage: ProviderStage) -> None:
        self._stage = stage

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Answer the last message."""
        stage = self._stage
        text = last_user_text(request.messages)
        head = head_of(text)
        stage.on_request(head, request.messages)
        fate = stage.fate("model", head)
        stage.open += 1
        try:
            await asyncio.sleep(3.0 if fate == "slow" else 0.15)
            if fate == "fails":
                raise _failure(FailureKind.CONNECTIVITY)
            if fate == "hangs":
                await _forever()
            if fate == "empty":
                yield ReplyFinished()
                return
            if fate == "garbage":
                yield cast(Any, object())
            answer = reply_text(text)
            half = answer.find(" ", len(answer) // 2) + 1
            for number, delta in enumerate((answer[:8], answer[8:half], answer[half:])):
                if number:
                    await asyncio.sleep(0.1)
                if fate == "breaks off" and number == 2:
                    raise _failure(FailureKind.BROKEN)
                yield TextDelta(delta)
            yield ReplyFinished()
        finally:
            stage.open -= 1


class SimulatedSynthesizer:
    """Speaks each sentence as samples of one value."""

    voices = ("simulated",)

    def __init__(self, stage: ProviderStage) -> None:
        self._stage = stage

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak one sentence, in chunks of a second."""
        stage = self._stage
        head = head_of(text)
        fate = stage.fate("synthesizer", head)
        pcm = struct.pack("<h", stage.voice_value(text)) * (
            len(text) * CHARACTER_MS * PCM_RATE_HZ // 1000
        )
        stage.open += 1
        try:
            await asyncio.sleep(2.0 if fate == "slow" else 0.1)
            if fate == "fails":
                raise _failure(FailureKind.CONNECTIVITY)
            if fate == "hangs":
                await _forever()
            if fate == "mute":
                return
            if fate == "garbage":
                yield cast(Any, object())
            step = PCM_RATE_HZ * 2
            for start in range(0, len(pcm), step):
                if start:
                    if fate == "breaks off":
                        raise _failure(FailureKind.BROKEN)
                    await asyncio.sleep(0.2)
                stage.spoken_s[head] = asyncio.get_running_loop().time()
                yield AudioChunk(pcm[start : start + step], PCM_RATE_HZ)
        finally:
            stage.open -= 1
