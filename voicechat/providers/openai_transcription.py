"""OpenAI's transcription endpoint: Whisper and its like, which know only whole utterances."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, TypeAlias

import aiohttp
from pydantic import BaseModel, BeforeValidator, ValidationError

from voicechat.audio.wav import wav_header
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions
from voicechat.providers.openai_errors import reported_in
from voicechat.providers.openai_http import PROVIDER, OpenAIEndpoint, read_whole
from voicechat.providers.timed_words import TimedText, timed_words
from voicechat.providers.utterances import Schedule, recognize_utterances
from voicechat.session.vocabulary import Transcript, Word

MAX_ANSWER_BYTES = 256 * 1024
"""Half a minute of speech with times and tokens is some 20 KB."""
NO_SPEECH, UNSURE = 0.6, -1.0
"""A segment whose ``no_speech_prob`` is above the first and ``avg_logprob`` below the second is silence: Whisper's own
``no_speech_threshold`` and ``logprob_threshold`` (openai/whisper, transcribe.py)."""


class OpenAIRecognizer:
    """A `SpeechRecognizer` over HTTP; see `recognize_utterances` for how it hears."""

    def __init__(self, endpoint: OpenAIEndpoint, fields: dict[str, str], schedule: Schedule) -> None:
        """``fields`` are sent with every request: the model, the language and the like."""
        self._endpoint = endpoint
        self._fields = fields
        self._schedule = schedule
        self._knows_times = True
        """As long as the server has not refused to give times of words."""

    async def start(self) -> None:
        """Warm a connection up; see `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def probe(self) -> None:
        """Ask whether the service lives; see `OpenAIEndpoint.probe`."""
        await self._endpoint.probe()

    async def aclose(self) -> None:
        """Close all connections; streams that are still open fail."""
        await self._endpoint.aclose()

    def recognize(self, audio: AsyncIterator[bytes], options: RecognitionOptions) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream; see `SpeechRecognizer`. Cancelling closes the connection.

        Raises `ProviderError`, besides what `OpenAIEndpoint.post` raises: BROKEN for what is no transcription. What
        ``audio`` raises passes through.
        """
        return recognize_utterances(audio, self._decode, self._schedule)

    async def _decode(self, pcm: bytes, final: bool) -> Sequence[Word]:
        if self._knows_times:
            try:
                return await self._ask(pcm, times=True)
            except ProviderError as error:
                if error.kind is not FailureKind.REJECTED:
                    raise
            # Perhaps it was only the times: OpenAI's own later models refuse them.
            words = await self._ask(pcm, times=False)
            self._knows_times = False
            return words
        return await self._ask(pcm, times=False)

    async def _ask(self, pcm: bytes, *, times: bool) -> Sequence[Word]:
        def form() -> aiohttp.FormData:
            data = aiohttp.FormData(self._fields)
            data.add_field("response_format", "verbose_json" if times else "json")
            for granularity in ("word", "segment") if times else ():
                data.add_field("timestamp_granularities[]", granularity)
            wav = wav_header(PCM_RATE_HZ, len(pcm)) + pcm
            data.add_field("file", wav, filename="speech.wav", content_type="audio/wav")
            return data

        async with self._endpoint.post("audio/transcriptions", form, {"Accept": "application/json"}) as response:
            body = await read_whole(response.content, MAX_ANSWER_BYTES)
        return read_answer(body, len(pcm) * 1000 // (PCM_RATE_HZ * 2))


_Seconds: TypeAlias = Annotated[float, BeforeValidator(lambda value: value or 0)]


class _Timed(BaseModel):
    start: _Seconds = 0
    end: _Seconds = 0


class _Word(_Timed):
    word: str


class _Segment(_Timed):
    text: str = ""
    no_speech_prob: _Seconds = 0
    avg_logprob: _Seconds = 0

    @property
    def silent(self) -> bool:
        """Whether Whisper itself would have thrown it away."""
        return self.no_speech_prob > NO_SPEECH and self.avg_logprob < UNSURE


class _Answer(BaseModel):
    text: str
    words: list[_Word] | None = None
    segments: list[_Segment] | None = None


def read_answer(body: bytes, duration_ms: int) -> tuple[Word, ...]:
    """Read a transcription of ``duration_ms`` of audio. Raises `ProviderError` (BROKEN, or as an error object says)."""
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError:
        raise reported_in(PROVIDER, body) or ProviderError(
            PROVIDER, FailureKind.BROKEN, "the server answered with no transcription in JSON"
        ) from None
    if answer.segments and all(segment.silent for segment in answer.segments):
        return ()
    pieces = [TimedText(word.word, word.start * 1000, word.end * 1000) for word in answer.words or ()]
    if not pieces:
        pieces = [TimedText(each.text, each.start * 1000, each.end * 1000) for each in answer.segments or ()]
    return timed_words(answer.text, pieces, duration_ms)
