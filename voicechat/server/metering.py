"""Counts a key's audio: what a recogniser receives, and what a synthesiser returns."""

from collections.abc import AsyncIterator
from dataclasses import replace

from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    AudioChunk,
    RecognitionOptions,
    SpeechRecognizer,
    SpeechSynthesizer,
    VoiceOptions,
)
from voicechat.providers.wrapping import WrappingRecognizer, WrappingSynthesizer
from voicechat.records.usage import Used
from voicechat.runtime.conversation import SessionProviders
from voicechat.runtime.provider_deadlines import closing
from voicechat.session.types import Transcript
from voicechat.store.quotas import Account

PORTION_MS = 200
"""Audio is counted in portions of 200 ms: a synthesiser may return pieces of 20 ms as
fast as it can.
"""
PORTION_BYTES = PORTION_MS * PCM_RATE_HZ * 2 // 1000


def metered(
    providers: SessionProviders, account: Account, used: Used | None = None
) -> SessionProviders:
    """Wrap the recogniser and the synthesiser of a session so that ``account`` is
    charged, and what the session has used is added to ``used``.
    """
    used = used or Used()
    return replace(
        providers,
        recognizer=MeteredRecognizer(providers.recognizer, account, used),
        synthesizer=MeteredSynthesizer(providers.synthesizer, account, used),
    )


class MeteredRecognizer(WrappingRecognizer):
    """A `SpeechRecognizer` that charges an account for its input."""

    def __init__(
        self, recognizer: SpeechRecognizer, account: Account, used: Used | None = None
    ) -> None:
        super().__init__(recognizer)
        self._account = account
        self._used = used or Used()

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Recognise for the account's key, and charge for the audio that the recogniser
        takes.
        """
        options = replace(options, caller=self._account.key_id)
        return self._inner.recognize(_Counted(audio, self._account, self._used), options)


class _Counted:
    """An iterator over a recogniser's audio that counts the audio."""

    def __init__(self, audio: AsyncIterator[bytes], account: Account, used: Used) -> None:
        self._audio = audio
        self._account = account
        self._used = used
        self._heard_bytes = 0
        self._due_bytes = PORTION_BYTES
        self._counted_ms = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            pcm = await anext(self._audio)
        except BaseException:  # the end of the audio, or the recogniser was stopped
            self._count()
            raise
        self._heard_bytes += len(pcm)
        if self._heard_bytes >= self._due_bytes:
            self._count()
        return pcm

    def _count(self) -> None:
        heard_ms = _length_ms(self._heard_bytes, PCM_RATE_HZ)
        self._account.use_audio(heard_ms - self._counted_ms)
        self._used.heard_ms += heard_ms - self._counted_ms
        self._counted_ms = heard_ms
        self._due_bytes = self._heard_bytes + PORTION_BYTES


class MeteredSynthesizer(WrappingSynthesizer):
    """A `SpeechSynthesizer` that charges an account for its output."""

    def __init__(
        self, synthesizer: SpeechSynthesizer, account: Account, used: Used | None = None
    ) -> None:
        super().__init__(synthesizer)
        self._account = account
        self._used = used or Used()

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Synthesise, and charge for the audio that is yielded."""
        made_bytes, counted_ms, rate_hz = 0, 0, PCM_RATE_HZ
        self._used.characters += len(text)
        chunks = self._inner.synthesize(text, voice)
        try:
            async with closing(chunks):
                async for chunk in chunks:
                    made_bytes, rate_hz = made_bytes + len(chunk.pcm), chunk.rate_hz
                    if made_bytes * 1000 >= (counted_ms + PORTION_MS) * 2 * rate_hz:
                        made_ms = _length_ms(made_bytes, rate_hz)
                        self._count(made_ms - counted_ms)
                        counted_ms = made_ms
                    yield chunk
        finally:
            self._count(_length_ms(made_bytes, rate_hz) - counted_ms)

    def _count(self, length_ms: int) -> None:
        self._account.use_audio(length_ms)
        self._used.spoken_ms += length_ms


def _length_ms(size_bytes: int, rate_hz: int) -> int:
    """Return the length of s16le mono audio.

    It is computed for a whole stream, so that rounding errors do not add up.
    """
    return size_bytes * 1000 // (2 * rate_hz)
