"""The espeak-ng C library through ctypes: text in, samples out, one caller at a time.

The library keeps its state in globals: one voice, one rate, one synthesis per process.
A lock serialises the callers; the library releases the interpreter lock while it
computes.
"""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass

from voicechat.errors import FailureKind, ProviderError

PROVIDER = "espeak"

# From speak_lib.h of espeak-ng 1.52.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_PHONEMES_IPA = 2
_PHONEMES_TIE = 0x80
_RATE = 1
_PITCH = 3
_RANGE = 4
_INITIALIZE_DONT_EXIT = 0x8000
_OK = 0

BUFFER_MS = 60
"""Audio in one callback. Small, because the first one determines the latency, and
synthesis can stop only at a callback.
"""

_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

OnSamples = Callable[[bytes], bool]
"""Receives s16le mono samples as they are made. Returns False to stop the synthesis."""


@dataclass(frozen=True, slots=True)
class Prosody:
    """How a text is spoken, in the library's units."""

    rate_wpm: int
    """Words a minute, 80 to 450."""
    pitch: int = 50
    """0 to 100. The base frequency doubles with every 50."""
    pitch_range: int = 50
    """0 to 100: how far the melody moves from its base."""


class EspeakLibrary:
    """The loaded library. There is one per process: see `open_library`."""

    def __init__(self, library_path: str, data_path: str) -> None:
        """Load the library and its voices, in about 2 ms. Raises `ProviderError`
        (BROKEN).
        """
        try:
            self._library = ctypes.CDLL(library_path)
        except OSError as error:
            raise ProviderError(
                PROVIDER, FailureKind.BROKEN, f"the library cannot be loaded: {error}"
            ) from error
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint,
            ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        self._library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        self._library.espeak_TextToPhonemes.argtypes = [
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.c_int,
            ctypes.c_int,
        ]
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.rate_hz: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, BUFFER_MS, data_path.encode(), _INITIALIZE_DONT_EXIT
        )
        if self.rate_hz <= 0:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, f"no voices in {data_path}")
        self._turn = threading.Lock()
        self._on_samples: OnSamples = _refuse
        # The C side keeps the pointer, so this object must live as long as the library.
        self._callback = _SynthCallback(self._called_back)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, prosody: Prosody, on_samples: OnSamples) -> None:
        """Synthesise; blocks the calling thread and calls ``on_samples`` on it. Accepts
        any text.

        Raises `ProviderError`: REJECTED for a voice that does not exist, BROKEN when
        the library fails.
        """
        spoken = "".join(char if char.isprintable() else " " for char in text).encode(
            "utf-8", "replace"
        )
        with self._turn:
            if self._library.espeak_SetVoiceByName(voice.encode()) != _OK:
                raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {voice!r}")
            self._library.espeak_SetParameter(_RATE, prosody.rate_wpm, 0)
            self._library.espeak_SetParameter(_PITCH, prosody.pitch, 0)
            self._library.espeak_SetParameter(_RANGE, prosody.pitch_range, 0)
            self._on_samples = on_samples
            try:
                status = self._library.espeak_Synth(
                    spoken, len(spoken) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
                )
            finally:
                self._on_samples = _refuse
        if status != _OK:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, f"espeak_Synth gave status {status}")

    def phonemes(self, text: str, voice: str, tie: str = "") -> str:
        """Return the pronunciation in IPA, with a space between words. Accepts any
        text.

        ``tie``: a character that joins the letters of one phoneme, such as a diphthong.

        Raises `ProviderError` (REJECTED) for a voice that does not exist.
        """
        written = "".join(char if char.isprintable() else " " for char in text).encode(
            "utf-8", "replace"
        )
        buffer = ctypes.create_string_buffer(written)
        rest = ctypes.c_char_p(ctypes.addressof(buffer))
        mode = _PHONEMES_IPA | (_PHONEMES_TIE | ord(tie) << 8 if tie else 0)
        clauses: list[bytes] = []
        with self._turn:
            if self._library.espeak_SetVoiceByName(voice.encode()) != _OK:
                raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {voice!r}")
            while (
                rest.value is not None
            ):  # the library moves it behind each clause, and to NULL at the end
                clauses.append(
                    self._library.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, mode)
                    or b""
                )
        return " ".join(clause.decode("utf-8", "replace") for clause in clauses if clause)

    def _called_back(
        self, samples: "ctypes._Pointer[ctypes.c_short] | None", count: int, _events: int | None
    ) -> int:
        if not samples or count <= 0:
            return 0
        return 0 if self._on_samples(ctypes.string_at(samples, count * 2)) else 1


def _refuse(_pcm: bytes) -> bool:
    return False


_opening = threading.Lock()
_opened: list[EspeakLibrary] = []


def open_library() -> EspeakLibrary:
    """Return the process's only instance; the first call loads it.

    Raises `ModuleNotFoundError` when ``espeakng-loader`` is not installed and
    `ProviderError` when it is unusable.
    """
    # espeak-ng is GPL-3: it is loaded only if this provider is configured.
    import espeakng_loader

    with _opening:
        if not _opened:
            _opened.append(
                EspeakLibrary(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
            )
        return _opened[0]
