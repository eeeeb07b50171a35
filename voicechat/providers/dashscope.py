"""Alibaba Cloud's DashScope (Model Studio): Paraformer recognition and CosyVoice
synthesis over WebSockets.

The protocol is that of the public Python SDK; `voicechat.providers.dashscope_protocol`
names its files.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.audio_feed import AudioFeed
from voicechat.providers.dashscope_media import BASE_URL as MEDIA_URL
from voicechat.providers.dashscope_media import (
    DashScopeImages,
    DashScopeMediaTasks,
    DashScopeVideos,
)
from voicechat.providers.dashscope_protocol import (
    PROVIDER,
    DashScopeTranscripts,
    Sentence,
    TaskKind,
)
from voicechat.providers.dashscope_tasks import DashScopeEndpoint, DashScopeTask, TaskRunner
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    AudioChunk,
    RecognitionOptions,
    RecognizerProvider,
    SynthesizerProvider,
    VoiceOptions,
)
from voicechat.providers.lookahead_audio import BYTES_PER_MS, LookaheadAudio
from voicechat.providers.openai_http import OpenAIEndpoint
from voicechat.providers.websocket_link import LinkLostError, checked_url, tls_for
from voicechat.session.types import Transcript

BASE_URL = "wss://dashscope.aliyuncs.com/api-ws/v1/inference"

GAP_S = 15.0
"""The service fails a task that gets no audio for 23 s (the SDK's
``SILENCE_TIMEOUT_S``). The task is finished before that, and the next audio starts
another one.
"""
MESSAGE_BYTES = 200 * BYTES_PER_MS
"""Audio bytes in one message."""
MAX_TEXT = 5_000
"""Characters in one ``continue-task``. The service accepts 20000."""
SLOWEST, FASTEST = 0.5, 2.0
"""The service's bounds of ``rate`` and ``pitch``."""


class DashScopeRecognizer(RecognizerProvider):
    """A `SpeechRecognizer`. Each stretch of audio without long gaps is one task."""

    def __init__(self, runner: TaskRunner, model: str, parameters: dict[str, object]) -> None:
        self._runner = runner
        self._kind = TaskKind("asr", "recognition", model)
        self._parameters = parameters

    async def probe(self) -> None:
        """Open and drop a connection to check the key, as `TaskRunner.probe`."""
        await self._runner.probe()

    async def aclose(self) -> None:
        """Close all connections; streams in progress fail."""
        self._runner.close()

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream. Connects when the first audio arrives.

        Raises `ProviderError`: TIMEOUT (connecting, silence after the end of the audio,
        audio not accepted), CONNECTIVITY (refused, closed, the service's own failures),
        RATE_LIMIT (throttled), REJECTED (key, model, parameters), BROKEN (protocol
        error). Exceptions of ``audio`` are passed on. Cancelling drops the connection.
        """
        pieces = LookaheadAudio(audio)
        try:
            while not await pieces.ended():
                async with aclosing(self._stretch(pieces)) as transcripts:
                    async for transcript in transcripts:
                        yield transcript
        finally:
            await pieces.aclose()

    async def _stretch(self, pieces: LookaheadAudio) -> AsyncGenerator[Transcript, None]:
        """Recognise the audio up to its end or its next long gap."""
        sentences = DashScopeTranscripts(pieces.taken_ms)
        task = await self._runner.start_task(self._kind, self._parameters)
        feeding = AudioFeed(_feed(task, pieces), task.abort)
        try:
            while (output := await task.next_output()) is not None:
                if not isinstance(output, Sentence):
                    raise ProviderError(PROVIDER, FailureKind.BROKEN, "audio in answer to audio")
                if (transcript := sentences.read_sentence(output)) is not None:
                    yield transcript
            if (transcript := sentences.close(pieces.taken_ms)) is not None:
                yield transcript
        except LinkLostError:
            feeding.raise_failure()
            raise
        finally:
            self._runner.release_task(task)
            await feeding.stop()


async def _feed(task: DashScopeTask, pieces: LookaheadAudio) -> None:
    while await pieces.ready(GAP_S) and (pcm := await pieces.take_audio()) is not None:
        for start in range(0, len(pcm), MESSAGE_BYTES):
            await task.send_audio(pcm[start : start + MESSAGE_BYTES])
            await asyncio.sleep(
                0
            )  # let other sessions run while audio is available without waiting
    await task.end_input()


class DashScopeSynthesizer(SynthesizerProvider):
    """A `SpeechSynthesizer`. Each sentence is one task."""

    def __init__(
        self,
        runner: TaskRunner,
        model: str,
        voices: tuple[str, ...],
        rate_hz: int,
        parameters: dict[str, object],
    ) -> None:
        """``voices``: the first is the default."""
        self._runner = runner
        self._kind = TaskKind("tts", "SpeechSynthesizer", model)
        self._voices = voices
        self._rate_hz = rate_hz
        self._parameters = parameters

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request. The first is the default."""
        return self._voices

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether both rates are within the service's bounds."""
        return SLOWEST <= speech_rate <= FASTEST and SLOWEST <= pitch_rate <= FASTEST

    async def probe(self) -> None:
        """Open and drop a connection to check the key, as `TaskRunner.probe`."""
        await self._runner.probe()

    async def aclose(self) -> None:
        """Close all connections; sentences in progress fail."""
        self._runner.close()

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak. Text without a letter or digit yields no chunk and opens no
        connection.

        Raises `ProviderError` as `DashScopeRecognizer.recognize`, and REJECTED for an
        unknown voice. Cancelling drops the connection, so that the service stops.
        """
        name = voice.voice or self._voices[0]
        if name not in self._voices:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {name!r}")
        if not any(char.isalnum() for char in text):
            return
        spoken = {"voice": name, "rate": voice.speech_rate, "pitch": voice.pitch_rate}
        task = await self._runner.start_task(self._kind, self._parameters | spoken)
        try:
            for start in range(0, len(text), MAX_TEXT):
                await task.send_text(text[start : start + MAX_TEXT])
            await task.end_input()
            odd_byte = b""
            while (output := await task.next_output()) is not None:
                if isinstance(output, bytes):
                    pcm = odd_byte + output
                    whole_bytes = len(pcm) & ~1
                    odd_byte = pcm[whole_bytes:]
                    if whole_bytes:
                        yield AudioChunk(pcm[:whole_bytes], self._rate_hz)
        finally:
            self._runner.release_task(task)


def open_recognizer(
    *,
    api_key: str,
    model: str = "paraformer-realtime-v2",
    language_hints: tuple[str, ...] = (),
    parameters: Mapping[str, JsonValue] | None = None,
    base_url: str = BASE_URL,
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    read_timeout_ms: Annotated[int, Field(ge=1)] = 10_000,
) -> DashScopeRecognizer:
    """Open the recogniser.

    ``language_hints``: such as ``["zh", "en"]``; empty: the model detects the language.
    ``parameters``: further parameters of the model (``vocabulary_id``,
    ``disfluency_removal_enabled``). ``connect_ms``: limit for TCP, TLS and handshake.
    ``read_timeout_ms``: limit for each expected answer. Raises `ConfigError` for an
    unusable URL.
    """
    # "heartbeat" keeps a task alive that receives only silence for a minute.
    sent: dict[str, object] = {
        "heartbeat": True,
        **(parameters or {}),
        "format": "pcm",
        "sample_rate": PCM_RATE_HZ,
    }
    if language_hints:
        sent["language_hints"] = language_hints
    return DashScopeRecognizer(
        _open_runner(base_url, api_key, connect_ms, read_timeout_ms), model, sent
    )


def open_synthesizer(
    *,
    api_key: str,
    model: str = "cosyvoice-v2",
    voices: Annotated[tuple[str, ...], Field(min_length=1)] = ("longxiaochun_v2",),
    sample_rate_hz: Literal[8000, 16000, 22050, 24000, 44100, 48000] = 24000,
    parameters: Mapping[str, JsonValue] | None = None,
    base_url: str = BASE_URL,
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    read_timeout_ms: Annotated[int, Field(ge=1)] = 10_000,
) -> DashScopeSynthesizer:
    """Open the synthesiser.

    ``voices``: names that clients may request, the default first; the model must have
    them. ``parameters``: further parameters of the model (``instruction``, ``seed``;
    ``volume``, 0 to 100, before the client's own). ``connect_ms`` and
    ``read_timeout_ms`` as for `open_recognizer`. Raises `ConfigError` for an unusable
    URL.
    """
    sent: dict[str, object] = {"volume": 50, **(parameters or {})}
    sent |= {"text_type": "PlainText", "format": "pcm", "sample_rate": sample_rate_hz}
    runner = _open_runner(base_url, api_key, connect_ms, read_timeout_ms)
    return DashScopeSynthesizer(runner, model, voices, sample_rate_hz, sent)


def _open_runner(base_url: str, api_key: str, connect_ms: int, read_timeout_ms: int) -> TaskRunner:
    url = checked_url("base_url", base_url)
    return TaskRunner(
        DashScopeEndpoint(url, api_key, tls_for(url), connect_ms / 1000, read_timeout_ms / 1000)
    )


def open_image_generator(
    *,
    model: str = "",
    base_url: str = MEDIA_URL,
    api_key: str,
    poll_s: Annotated[float, Field(gt=0, le=60)] = 2.0,
    total_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0,
) -> DashScopeImages:
    """Open the tasks that make pictures.

    ``model``: such as ``qwen-image``; empty: the one that the client names. ``poll_s``:
    interval between polls of a task; ``total_s``: limit for the whole task. Raises
    `ConfigError`.
    """
    tasks = DashScopeMediaTasks(OpenAIEndpoint(base_url, api_key), poll_s=poll_s, total_s=total_s)
    return DashScopeImages(tasks, model)


def open_video_generator(
    *,
    model: str = "",
    base_url: str = MEDIA_URL,
    api_key: str,
    poll_s: Annotated[float, Field(gt=0, le=60)] = 10.0,
    total_s: Annotated[float, Field(gt=0, le=86_400)] = 3_600.0,
) -> DashScopeVideos:
    """Open the tasks that make videos. The keys are the same as for pictures."""
    tasks = DashScopeMediaTasks(OpenAIEndpoint(base_url, api_key), poll_s=poll_s, total_s=total_s)
    return DashScopeVideos(tasks, model)
