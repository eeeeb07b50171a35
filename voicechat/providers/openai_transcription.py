"""OpenAI's transcription endpoint: Whisper and similar models, which recognise only
whole utterances.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import aiohttp

from voicechat.audio.wav import wav_header
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, RecognizerProvider
from voicechat.providers.lenient_json import read_json, well_formed
from voicechat.providers.openai_errors import error_in, reported
from voicechat.providers.openai_http import PROVIDER, OpenAIEndpoint, read_whole
from voicechat.providers.timed_words import TimedText, timed_words
from voicechat.providers.utterances import Recognized, Schedule, recognize_utterances
from voicechat.providers.whisper_guards import is_sign_off, is_silence
from voicechat.session.types import Transcript, Word

MAX_ANSWER_BYTES = 256 * 1024
"""30 s of speech with times and tokens is about 20 KB."""


class OpenAIRecognizer(RecognizerProvider):
    """A `SpeechRecognizer` over HTTP, by `recognize_utterances`."""

    def __init__(
        self, endpoint: OpenAIEndpoint, fields: dict[str, str], schedule: Schedule
    ) -> None:
        """``fields``, such as model and language, are sent with every request."""
        self._endpoint = endpoint
        self._fields = fields
        self._schedule = schedule
        self._knows_times = True
        """False once the server has refused to return word times."""

    async def start(self) -> None:
        """Warm up a connection, as `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def probe(self) -> None:
        """Check whether the service answers, as `OpenAIEndpoint.probe`."""
        await self._endpoint.probe()

    async def aclose(self) -> None:
        """Close all connections; streams that are still open fail."""
        await self._endpoint.aclose()

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream. Cancelling closes the connection.

        Raises `ProviderError`, besides what `OpenAIEndpoint.post` raises: BROKEN for an
        invalid transcription. Exceptions of ``audio`` are passed on.
        """
        return recognize_utterances(
            audio, self._decode, self._schedule, hypotheses=options.hypotheses
        )

    async def _decode(self, pcm: bytes, final: bool) -> Recognized:
        if self._knows_times:
            try:
                return Recognized(await self._ask(pcm, times=True))
            except ProviderError as error:
                if error.kind is not FailureKind.REJECTED:
                    raise
            # Retry without word times: OpenAI's later models refuse them.
            words = await self._ask(pcm, times=False)
            self._knows_times = False
            return Recognized(words)
        return Recognized(await self._ask(pcm, times=False))

    async def _ask(self, pcm: bytes, *, times: bool) -> Sequence[Word]:
        def form() -> aiohttp.FormData:
            data = aiohttp.FormData(self._fields)
            data.add_field("response_format", "verbose_json" if times else "json")
            for granularity in ("word", "segment") if times else ():
                data.add_field("timestamp_granularities[]", granularity)
            wav = wav_header(PCM_RATE_HZ, len(pcm)) + pcm
            data.add_field("file", wav, filename="speech.wav", content_type="audio/wav")
            return data

        async with self._endpoint.post(
            "audio/transcriptions", form, {"Accept": "application/json"}
        ) as response:
            body = await read_whole(response.content, MAX_ANSWER_BYTES)
        return read_answer(body, len(pcm) * 1000 // (PCM_RATE_HZ * 2))


def read_answer(body: bytes, duration_ms: int) -> tuple[Word, ...]:
    """Parse a transcription of ``duration_ms`` of audio.

    ``text`` is enough: words and segments in another form, and null, count as absent.
    Raises `ProviderError`: BROKEN, or the failure of an error object.
    """
    answer = well_formed(read_json(body))
    if (error := error_in(answer)) is not None:
        raise reported(PROVIDER, error)
    if not isinstance(answer, dict) or not ("text" in answer or "segments" in answer):
        message = "the server answered with no transcription in JSON"
        raise ProviderError(PROVIDER, FailureKind.BROKEN, message)
    segments = _objects(answer.get("segments"))
    text = answer.get("text")
    signs_off = isinstance(text, str) and is_sign_off(text)
    if segments and all(_is_silent(segment, signs_off) for segment in segments):
        return ()
    pieces = _timed(_objects(answer.get("words")), "word") or _timed(segments, "text")
    if not isinstance(text, str):
        text = "".join(piece.text for piece in pieces)
    return timed_words(text, pieces, duration_ms)


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _timed(items: Sequence[Mapping[str, object]], key: str) -> list[TimedText]:
    """Return the items with a text under ``key`` and their times in milliseconds. An
    invalid time is 0.
    """
    return [
        TimedText(text, _number(item.get("start")) * 1000, _number(item.get("end")) * 1000)
        for item in items
        if isinstance(text := item.get(key), str)
    ]


def _is_silent(segment: Mapping[str, object], signs_off: bool) -> bool:
    no_speech, logprob = _number(segment.get("no_speech_prob")), _number(segment.get("avg_logprob"))
    return is_silence(no_speech, logprob, sign_off=signs_off)


def _number(value: object) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
