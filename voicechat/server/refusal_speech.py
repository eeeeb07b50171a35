"""The apology for telephone callers who are refused, or whose turn fails without a
sound. It is synthesised in advance.
"""

import asyncio
import logging
from collections.abc import Callable

from voicechat.audio.resample import Resampler
from voicechat.audio.speech_level import LevelControl, SpeechLevel
from voicechat.dialects.base import Refused
from voicechat.dialects.telephony import LEVEL_DBOV
from voicechat.errors import ProviderError, Status
from voicechat.providers.interfaces import SpeechSynthesizer, VoiceOptions
from voicechat.runtime.socket import Socket
from voicechat.session.fallback_message import FallbackMessage

PREPARE_S = 10.0
"""Time limit for synthesising the two sentences."""
MOST_SPOKEN = 50
"""Most callers who hear the apology at the same time; others are refused silently. Each
takes at most 50 small messages a second.
"""
_UNSPOKEN = frozenset({Status.NOT_AUTHORISED, Status.MALFORMED, Status.TIMEOUT})
"""Refusals without an apology, because the client may not be a caller at all."""

_log = logging.getLogger(__name__)


class RefusalSpeech:
    """The apology in both languages, as samples. Before ``prepare`` callers are refused
    silently.
    """

    def __init__(self, apology: FallbackMessage | None = None) -> None:
        """``apology`` None: refused callers hear nothing."""
        self._apology = apology
        self._spoken: dict[tuple[str, int], bytes] = {}
        """The speech (s16le mono) by text and sample rate. The rates are those of
        telephone lines.
        """
        self._rate_hz = 0
        """The synthesiser's sample rate."""
        self._speaking = 0
        self._stopped = asyncio.Event()

    async def prepare(self, synthesizer: SpeechSynthesizer) -> None:
        """Synthesise both sentences within ``PREPARE_S``. A failure is logged, and
        refused callers then hear nothing.
        """
        if self._apology is None:
            return
        try:
            async with asyncio.timeout(PREPARE_S):
                for text in (self._apology.zh, self._apology.en):
                    pcm = bytearray()
                    async for chunk in synthesizer.synthesize(text, VoiceOptions()):
                        pcm += chunk.pcm
                        self._rate_hz = chunk.rate_hz
                    self._spoken[text, self._rate_hz] = self._levelled(bytes(pcm))
        except (ProviderError, TimeoutError) as error:
            _log.warning("refused callers of a telephone hear no apology: %r", error)

    def _levelled(self, pcm: bytes) -> bytes:
        level = SpeechLevel()
        LevelControl(LEVEL_DBOV, level).apply(pcm, self._rate_hz)
        return LevelControl(LEVEL_DBOV, level).apply(pcm, self._rate_hz)

    def speech(self, status: Status, language: str) -> Callable[[int], bytes] | None:
        """Return a function from a rate in Hz to the apology as s16le mono; None if
        nothing is spoken.

        ``language`` is the agent's; empty means English.
        """
        if status in _UNSPOKEN or self._speaking >= MOST_SPOKEN:
            return None
        return self.apology(language)

    def apology(self, language: str) -> Callable[[int], bytes] | None:
        """Return the same for a caller who was admitted."""
        if self._apology is None:
            return None
        text = self._apology.in_language(language)
        if not self._spoken.get((text, self._rate_hz)):
            return None
        return lambda rate_hz: self._at(text, rate_hz)

    def _at(self, text: str, rate_hz: int) -> bytes:
        if (text, rate_hz) not in self._spoken:
            resampler = Resampler(self._rate_hz, rate_hz)
            pcm = resampler.push_audio(self._spoken[text, self._rate_hz])
            self._spoken[text, rate_hz] = pcm + resampler.finish_stream()
        return self._spoken[text, rate_hz]

    async def speak(self, socket: Socket, refused: Refused) -> None:
        """Send ``refused.spoken`` in real time, until its end or until ``stop``.

        Raises ``ConnectionError`` if the caller has disconnected.
        """
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        self._speaking += 1
        try:
            for group in refused.spoken:
                for frame in group:
                    await socket.send(frame)
                due_s += refused.pause_ms / 1000
                try:
                    async with asyncio.timeout_at(due_s):
                        await self._stopped.wait()
                except TimeoutError:
                    continue
                return
        finally:
            self._speaking -= 1

    def stop(self) -> None:
        """Stop all apologies, because the server stops."""
        self._stopped.set()
