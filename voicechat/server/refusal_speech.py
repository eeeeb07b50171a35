"""What a telephone's caller hears who is refused, or whose turn fails without a sound:
the apology, spoken before anything is wrong.
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
"""A synthesiser that takes longer for two sentences is none to wait for."""
MOST_SPOKEN = 50
"""Callers who are apologised to at once; others are refused without a word. Each costs
50 small messages a second at most.
"""
_UNSPOKEN = frozenset({Status.NOT_AUTHORISED, Status.MALFORMED, Status.TIMEOUT})
"""Refusals of those who may be no callers at all."""

_log = logging.getLogger(__name__)


class RefusalSpeech:
    """The apology in both languages, as samples. Before ``prepare`` callers are refused
    without a word.
    """

    def __init__(self, apology: FallbackMessage | None = None) -> None:
        """None: nothing is said."""
        self._apology = apology
        self._spoken: dict[tuple[str, int], bytes] = {}
        """s16le mono by text and rate. The rates are those of telephone lines."""
        self._rate_hz = 0
        """The synthesiser's own."""
        self._speaking = 0
        self._stopped = asyncio.Event()

    async def prepare(self, synthesizer: SpeechSynthesizer) -> None:
        """Let the synthesiser speak both sentences once, within ``PREPARE_S``. If it
        fails, that is logged, and refused callers hear nothing.
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
        """Return what gives the apology as s16le mono at a rate in Hz; None: nothing is
        said.

        ``language`` is that of the agent; empty: English.
        """
        if status in _UNSPOKEN or self._speaking >= MOST_SPOKEN:
            return None
        return self.apology(language)

    def apology(self, language: str) -> Callable[[int], bytes] | None:
        """Return the same for a caller who was let in."""
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
        """Send ``refused.spoken`` at its pace, until the end or until ``stop``.

        Raises ``ConnectionError`` when the caller has gone.
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
        """Say no more: the server stops."""
        self._stopped.set()
