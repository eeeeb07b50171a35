"""The embedded synthesiser: espeak-ng (from its wheel, offline), English and Chinese by
the script of the text.

10 s of speech takes about 10 ms; the first chunk takes less than 1 ms.
"""

import math
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import Field

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.espeak_library import PROVIDER, EspeakLibrary, Prosody, open_library
from voicechat.providers.interfaces import AudioChunk, SynthesizerProvider, VoiceOptions
from voicechat.providers.speech_thread import ChunkQueue, pieces, speaking
from voicechat.text.words import Script, runs_by_script

MAX_PIECE_CHARACTERS = 200
"""Text is synthesised in pieces of this length (about 15 s of speech, 20 ms of
computing), which bounds memory and how long other sessions wait.
"""


@dataclass(frozen=True, slots=True)
class ScriptVoices:
    """The espeak voice for each script. A voice spells out the letters of a foreign
    script.
    """

    latin: str
    han: str = "cmn"

    def voice_for(self, script: Script) -> str:
        """Return the voice for a run of ``script``."""
        return self.han if script is Script.HAN else self.latin


_MAN = ScriptVoices("en-us")
_WOMAN = ScriptVoices("en-us+f3", "cmn+f3")
_CHILD = ScriptVoices("en-us+f5", "cmn+f5")

VOICES: dict[str, ScriptVoices] = {
    "auto": _MAN,
    "en-us": _MAN,
    "en-us+f3": _WOMAN,
    # espeak calls British English "en".
    "en-gb": ScriptVoices("en"),
    "en-gb+f3": ScriptVoices("en+f3", "cmn+f3"),
    "cmn": _MAN,
    "cmn+f3": _WOMAN,
    # The names that the original document's clients use: women, men and a boy.
    "longxiaochun": _WOMAN,
    "longxiaoxia": _WOMAN,
    "longxiaobai": _WOMAN,
    "longwan": _WOMAN,
    "longjing": _WOMAN,
    "longyue": _WOMAN,
    "loongstella": _WOMAN,
    "loongbella": _WOMAN,
    "longcheng": _MAN,
    "longhua": _MAN,
    "longxiaocheng": _MAN,
    "longlaotie": _MAN,
    "longshu": _MAN,
    "longshuo": _MAN,
    "longjielidou": _CHILD,
}
"""Client-visible name to espeak voices; ``+f3`` is a woman's voice, ``+f5`` a child's.
"""

SLOWEST_WPM, FASTEST_WPM = 80, 450
"""The library's own limits."""


FAITHFUL_SPEECH_RATES = (0.7, 1.5)
FAITHFUL_PITCH_RATES = (0.65, 1.6)
"""Range in which the measured pitch is within a few percent of the requested one."""


class EspeakSynthesizer(SynthesizerProvider):
    """A `SpeechSynthesizer` on one thread. The C library releases the interpreter lock
    while it computes.
    """

    def __init__(self, library: EspeakLibrary, voices: tuple[str, ...], rate_wpm: int) -> None:
        """``voices``: names out of `VOICES`, the default first."""
        self._library = library
        self._voices = voices
        self._rate_wpm = rate_wpm
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="espeak")
        self._closed = False

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether espeak follows both rates. Beyond its range the pitch stays
        the same, and the speed is 20 % off.
        """
        return (
            FAITHFUL_SPEECH_RATES[0] <= speech_rate <= FAITHFUL_SPEECH_RATES[1]
            and FAITHFUL_PITCH_RATES[0] <= pitch_rate <= FAITHFUL_PITCH_RATES[1]
        )

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request. The first is the default."""
        return self._voices

    async def start(self) -> None:
        """Load both languages, so that the first sentence has no extra delay."""
        async for _ in self.synthesize("one 一", VoiceOptions()):
            pass

    async def aclose(self) -> None:
        """End the thread and fail the queued sentences. Waits for the current piece, at
        most 20 ms.
        """
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak. Text without a letter or digit yields no chunk.

        Raises `ProviderError`: REJECTED for an unknown voice, BROKEN when the library
        fails.
        """
        name = voice.voice or self._voices[0]
        if name not in self._voices:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {name!r}")
        prosody = _prosody(self._rate_wpm, voice)
        for script, run in runs_by_script(text):
            for piece in pieces(run, MAX_PIECE_CHARACTERS):
                submit = partial(self._submit, piece, VOICES[name].voice_for(script), prosody)
                with speaking(PROVIDER, submit) as chunks:
                    while (pcm := await chunks.next_chunk()) is not None:
                        yield AudioChunk(pcm, self._library.rate_hz)

    def _submit(self, piece: str, voice: str, prosody: Prosody, chunks: ChunkQueue) -> Future[None]:
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        return self._thread.submit(self._library.speak, piece, voice, prosody, chunks.put_chunk)


def _prosody(rate_wpm: int, voice: VoiceOptions) -> Prosody:
    wpm = min(max(round(rate_wpm * voice.speech_rate), SLOWEST_WPM), FASTEST_WPM)
    # Measured: about a fifth of the fundamental frequency follows neither setting in
    # ordinary speech. The rest compensates for that, which works for rates of 0.6 to
    # 1.8; rates beyond that are clipped.
    scale = min(max(voice.pitch_rate + (voice.pitch_rate - 1) * 0.25, 0.5), 2.0)
    return Prosody(wpm, round(50 + 50 * math.log2(scale)), round(50 * scale))


def open_synthesizer(
    *, voice: str = "auto", rate_wpm: Annotated[int, Field(ge=SLOWEST_WPM, le=FASTEST_WPM)] = 175
) -> EspeakSynthesizer:
    """Open the synthesiser.

    ``voice``: the default, one of `VOICES`. ``rate_wpm``: words a minute. Raises
    `ConfigError` for an unknown voice or when the package or its data is missing.
    """
    if voice not in VOICES:
        raise ConfigError(f"voice: {voice!r} is not one of {', '.join(VOICES)}")
    try:
        library = open_library()
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the espeak provider needs a package: pip install espeakng-loader"
        ) from error
    except ProviderError as error:
        raise ConfigError(str(error)) from error
    voices = (voice, *(name for name in VOICES if name != voice))
    return EspeakSynthesizer(library, voices, rate_wpm)
