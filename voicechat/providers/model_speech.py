"""A synthesiser whose model computes in a child process, clause by clause.

The first clause of a sentence is played while the next one is computed, and the clauses
of different sessions take turns in the child.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass

import orjson

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import AudioChunk, SynthesizerProvider, VoiceOptions
from voicechat.providers.model_process import ModelProcess
from voicechat.providers.speech_thread import pieces
from voicechat.text.words import speaking_ms

MAX_CLAUSE_CHARACTERS = 200
"""A clause without punctuation is cut here, at a space: about 15 s of speech."""
CLAUSES_AHEAD = 2
"""Clauses of one sentence in the child: the current one and the next."""
END_OF_CLAUSE = b""
"""The child's last answer to a clause; the others are samples, s16le mono."""

_CLAUSE = re.compile(r".+?(?:[,;:.!?…—]+(?=\s)|[，；：、。！？…—]+|\Z)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechOptions:
    """The options of one sentence."""

    voice: str
    speech_rate: float


def clauses(text: str, least_ms: int) -> Iterator[str]:
    """Cut a sentence after punctuation into parts of at most `MAX_CLAUSE_CHARACTERS`.
    Each part except the last takes at least ``least_ms`` to say.

    Parts without letters and digits are omitted.
    """
    part = ""
    for clause in _CLAUSE.findall(text):
        part += clause
        if speaking_ms(part) >= least_ms:
            yield from pieces(part, MAX_CLAUSE_CHARACTERS)
            part = ""
    yield from pieces(part, MAX_CLAUSE_CHARACTERS)


class ProcessSynthesizer(SynthesizerProvider):
    """A `SpeechSynthesizer` on one model in a child process that all sessions share."""

    def __init__(
        self,
        provider: str,
        process: ModelProcess,
        *,
        voices: tuple[str, ...],
        rate_hz: int,
        least_clause_ms: int,
    ) -> None:
        """``least_clause_ms``: see `clauses`."""
        self._provider = provider
        self._process = process
        self._voices = voices
        self._rate_hz = rate_hz
        self._least_clause_ms = least_clause_ms

    @property
    def process(self) -> ModelProcess:
        """The child with the model, for health checks."""
        return self._process

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request. The first is the default."""
        return self._voices

    @property
    def waiting_streams(self) -> int:
        """How many sentences wait for a place in the child, for admission control."""
        return self._process.waiting_jobs

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether both are supported: rates of 0.5 to 2, and no pitch."""
        return pitch_rate == 1 and 0.5 <= speech_rate <= 2

    @property
    def real_time_factor(self) -> float:
        """As `ModelProcess.real_time_factor`, of the first clauses of sentences."""
        return self._process.real_time_factor

    @property
    def patience_s(self) -> float:
        """As `ModelProcess.patience_s`."""
        return self._process.patience_s

    async def start(self) -> None:
        """Load the model. Raises `ProviderError` (BROKEN) when it cannot be loaded."""
        await self._process.start()

    async def aclose(self) -> None:
        """End the child process; sentences in progress fail."""
        await self._process.aclose()

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak. Text without a letter or digit yields no chunk.

        Raises `ProviderError`: REJECTED for an unknown voice, RATE_LIMIT when too many
        sentences wait, BROKEN when the model fails, CONNECTIVITY when the child is
        lost. Cancelling stops after the clause that is being computed.
        """
        name = voice.voice or self._voices[0]
        if name not in self._voices:
            raise ProviderError(self._provider, FailureKind.REJECTED, f"no voice {name!r}")
        # A lone surrogate cannot be sent.
        writable = text.encode("utf-8", "replace").decode()
        parts = iter(list(clauses(writable, self._least_clause_ms)))
        first = next(parts, None)
        if first is None:
            return
        loop = asyncio.get_running_loop()
        options = SpeechOptions(voice=name, speech_rate=voice.speech_rate)
        async with self._process.job(orjson.dumps(options)) as channel:
            began_s = loop.time()
            await channel.send(first.encode())
            ahead = 1
            first_bytes: int | None = 0
            async for message in channel:
                if first_bytes is not None:
                    first_bytes += len(message)
                    if message == END_OF_CLAUSE:
                        speech_s = first_bytes / 2 / self._rate_hz
                        self._process.note_speed(loop.time() - began_s, speech_s)
                        first_bytes = None
                ahead -= message == END_OF_CLAUSE
                while ahead < CLAUSES_AHEAD and (part := next(parts, None)) is not None:
                    await channel.send(part.encode())
                    ahead += 1
                if message:
                    yield AudioChunk(message, self._rate_hz)
                if not ahead:
                    return


class SpeechJob:
    """One sentence, in the child; each payload is a clause."""

    def __init__(
        self, speak: Callable[[str, SpeechOptions], Iterable[bytes]], asked: bytes
    ) -> None:
        """``speak`` yields the samples of a clause as they are made."""
        self._speak = speak
        self._asked = SpeechOptions(**orjson.loads(asked))

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Speak a clause; the last answer is `END_OF_CLAUSE`."""
        for pcm in self._speak(payload.decode(), self._asked):
            if pcm:
                yield pcm
        yield END_OF_CLAUSE

    def finish_input(self) -> Iterable[bytes]:
        """Return nothing: everything has been spoken."""
        return ()

    def close(self) -> None:
        """Do nothing: a sentence holds no resources."""
