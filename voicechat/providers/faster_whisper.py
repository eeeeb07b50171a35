"""Whisper in process, by faster-whisper (CTranslate2) on the CPU.

The packages are an extra: ``pip install 'voicechat[local]'``. See
``docs/providers/faster_whisper.md``.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field

from voicechat.audio.pause_detection import PAUSE_MS
from voicechat.errors import ConfigError
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, RecognizerProvider
from voicechat.providers.model_process import (
    ModelProcess,
    default_threads,
    model_path,
    need_package,
)
from voicechat.providers.pass_queue import PassQueue
from voicechat.providers.timed_words import TimedText, timed_words
from voicechat.providers.utterances import (
    MAX_UTTERANCE_MS,
    PARTIAL_EVERY_MS,
    Recognized,
    Schedule,
    recognize_utterances,
)
from voicechat.session.types import Transcript

PROVIDER = "faster_whisper"

PROMPTS = {"zh": "以下是普通话的句子。"}
"""The preceding text given to the model, by language. After simplified characters it
mostly writes simplified ones, with fewer errors. Without a prompt, Whisper base often
writes traditional ones.
"""
BEAM_SIZE = 5
"""faster-whisper's own default. Of 1,720 Chinese characters 83 are wrong, instead of
110 with a beam of 1, for 11 % more CPU time.
"""
FIRST_PARTIAL_MS = 400
"""See `Schedule`. The passes over an utterance are at 0.4, 0.6, 0.9 and 1.4 s, so that
its first words are known before one second, at which a sound without words interrupts.
"""
_FILES = ("model.bin", "config.json", "tokenizer.json")
_BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000

LanguageCode = Annotated[str, Field(pattern="^[a-z]{2,3}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The options of the child process."""

    model: str
    languages: tuple[str, ...]
    prompt: str
    simplified: bool
    compute_type: str
    beam_size: int
    threads: int
    niceness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOptions:
    """The options of one pass."""

    complete: bool
    language: str = ""
    """The language of the user's last utterance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAnswer:
    """The child's answer to one pass."""

    text: str
    language: str
    pieces: tuple[tuple[str, float, float], ...] = ()
    """Words with begin and end in milliseconds. Only complete utterances have them."""


class FasterWhisperRecognizer(RecognizerProvider):
    """A `SpeechRecognizer` on one model that all streams share, behind voice activity
    detection.
    """

    def __init__(self, process: ModelProcess, schedule: Schedule) -> None:
        self._process = process
        self._schedule = schedule
        self._passes = PassQueue(PROVIDER)

    @property
    def process(self) -> ModelProcess:
        """The child with the model, for health checks."""
        return self._process

    @property
    def waiting_streams(self) -> int:
        """How many complete utterances wait for the model, for admission control."""
        return self._passes.waiting

    @property
    def real_time_factor(self) -> float:
        """As `ModelProcess.real_time_factor`, of complete utterances."""
        return self._process.real_time_factor

    @property
    def patience_s(self) -> float:
        """As `ModelProcess.patience_s`."""
        return self._process.patience_s

    async def start(self) -> None:
        """Load the model. Raises `ProviderError` (BROKEN) when it cannot be loaded."""
        await self._process.start()

    async def aclose(self) -> None:
        """End the child process; open streams fail with their next pass."""
        await self._process.aclose()

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream, by `recognize_utterances`.

        Raises `ProviderError`: CONNECTIVITY when the child is lost (the same audio may
        succeed on a new stream), BROKEN when the pass itself fails. Exceptions of
        ``audio`` are passed on. Cancelling abandons the stream's pass at its next step,
        at most a few hundred milliseconds later, without waiting for it.
        """
        before = options.language

        async def recognise_pass(pcm: bytes, complete: bool) -> Recognized:
            nonlocal before
            asked = PassOptions(complete=complete, language=before)
            answer = await self._passes.run(lambda: self._pass(pcm, asked), complete=complete)
            if answer.text:
                before = answer.language
            pieces = [TimedText(*piece) for piece in answer.pieces]
            words = timed_words(answer.text, pieces, len(pcm) // _BYTES_PER_MS)
            return Recognized(words, answer.language)

        async with aclosing(
            recognize_utterances(
                audio, recognise_pass, self._schedule, hypotheses=options.hypotheses
            )
        ) as transcripts:
            async for transcript in transcripts:
                yield transcript

    async def _pass(self, pcm: bytes, asked: PassOptions) -> PassAnswer:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with self._process.job(orjson.dumps(asked)) as channel:
            await channel.send(pcm)
            channel.finish_input()
            answer = b""
            async for message in channel:
                answer = message
        if asked.complete:
            self._process.note_speed(loop.time() - began_s, len(pcm) / _BYTES_PER_MS / 1000)
        return PassAnswer(**orjson.loads(answer))


def open_recognizer(  # noqa: PLR0913 - the keys of a section
    *,
    model: str,
    models_dir: str = "",
    language: LanguageCode | Literal[""] | tuple[LanguageCode, ...] = "",
    prompt: str = "",
    simplified: bool = True,
    compute_type: Literal["int8", "int8_float32", "float32"] = "int8",
    beam_size: Annotated[int, Field(ge=1, le=10)] = BEAM_SIZE,
    threads: Annotated[int, Field(ge=1, le=64)] | None = None,
    pause_ms: Annotated[int, Field(ge=100, le=10_000)] = PAUSE_MS,
    partial_every_ms: Annotated[int, Field(ge=0, le=60_000)] = PARTIAL_EVERY_MS,
    max_utterance_ms: Annotated[int, Field(ge=3_000, le=28_000)] = MAX_UTTERANCE_MS,
    niceness: Annotated[int, Field(ge=0, le=19)] = 5,
) -> FasterWhisperRecognizer:
    """Open the recogniser; `start` or the first stream loads its model.

    ``model``: the folder of a CTranslate2 model, or its name in ``models_dir``.
    ``language``: ISO 639-1, such as ``zh``; a list: the model chooses one of them;
    empty: any. ``prompt``: names and words to expect. ``simplified``: Chinese in
    simplified characters; false: as the model writes it. ``compute_type``: of the
    weights. ``beam_size``: a larger one is slower and slightly better. ``threads``: of
    one pass; unset: the cores, at most 4. ``pause_ms``: silence that ends a sentence.
    ``partial_every_ms``: how often an open utterance is recognised for a partial
    result; 0: never. ``max_utterance_ms``: speech without a pause is cut here.
    ``niceness``: of the child process. Raises `ConfigError` naming the key, the value
    and what to do.
    """
    need_package("faster_whisper", PROVIDER)
    folder = model_path(model, models_dir)
    _check_folder(folder, model)
    languages = ((language,) if language else ()) if isinstance(language, str) else language
    if not languages and folder.name.endswith(".en"):
        languages = ("en",)
    options = WorkerOptions(
        model=str(folder),
        languages=languages,
        prompt=prompt,
        simplified=simplified,
        compute_type=compute_type,
        beam_size=beam_size,
        threads=threads or default_threads(),
        niceness=niceness,
    )
    process = ModelProcess(
        PROVIDER,
        "voicechat.providers.faster_whisper_worker",
        options,
        jobs=2,
        wait_ms=60_000,
        model=options.model,
    )
    schedule = Schedule(
        pause_ms=pause_ms,
        partial_every_ms=partial_every_ms,
        max_utterance_ms=max_utterance_ms,
        first_partial_ms=FIRST_PARTIAL_MS,
    )
    return FasterWhisperRecognizer(process, schedule)


def _check_folder(folder: Path, model: str) -> None:
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if not missing:
        return
    if any(folder.glob("*.onnx")):
        hint = "its .onnx files are for the provider sherpa_onnx"
    elif any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        hint = "convert it with ct2-transformers-converter"
    else:
        hint = "it takes a folder such as that of Systran/faster-whisper-base"
    raise ConfigError(
        f"model: {model!r} is no CTranslate2 model, {', '.join(missing)} missing: {hint}"
    )
