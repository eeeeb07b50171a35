"""The child process of the ``kokoro`` provider: one model, all its voices."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from voicechat.processes.child import serve
from voicechat.providers.kokoro import RATE_HZ, KokoroOptions
from voicechat.providers.kokoro_phonemes import tokens_of
from voicechat.providers.model_speech import SpeechJob, SpeechOptions
from voicechat.providers.onnx_session import open_session

MAX_TOKENS = 510
"""Longest input of the model, without the padding at both ends. A voice has a style for
each length.
"""
STYLE = 256
PROSODY_AT = 128
"""The first half of a style shapes the timbre; the second half, from this index, shapes
durations and pitch.
"""
PROSODY_OF = {"zf_xiaoni": "zf_xiaoxiao"}
"""Voices whose second half is replaced by that of another voice. With its own,
``zf_xiaoni`` loses the tones of Mandarin: Whisper base mishears every second character.
"""
SILENT = 0.01
"""Samples fainter than this part of full scale are cut off at both ends of a clause,
because the model adds up to half a second of silence.
"""
MARGIN_MS = 40
PAUSE_MS = {".": 280, "!": 280, "?": 280, "…": 280, ",": 130, ";": 180, ":": 180, "—": 130}
"""Silence after a clause, by its last mark, in place of the silence cut off."""
_PLAIN = str.maketrans("，、。！？；：", ",,.!?;:")


class KokoroSpeaker:
    """The loaded model."""

    def __init__(self, options: KokoroOptions) -> None:
        """Load the model. Raises onnxruntime's errors, and `ValueError` for a model of
        another kind.
        """
        self._session = open_session(options.model, options.threads)
        inputs = {entry.name for entry in self._session.get_inputs()}
        self._tokens_name = "input_ids" if "input_ids" in inputs else "tokens"
        if inputs != {self._tokens_name, "style", "speed"}:
            raise ValueError(f"this is no Kokoro model: its inputs are {sorted(inputs)}")
        self._voices_at = Path(options.voices)
        self._styles: dict[str, NDArray[np.float32]] = {}
        # Warm up in both languages, so that a user's first sentence is as fast as later
        # ones.
        voice = self._any_voice()
        for text in ("One.", "一。"):
            for _ in self.speak(text, SpeechOptions(voice=voice, speech_rate=1.0)):
                pass

    def speak(self, text: str, asked: SpeechOptions) -> Iterator[bytes]:
        """Speak a clause."""
        tokens = tokens_of(text, asked.voice)
        for start in range(0, len(tokens), MAX_TOKENS):
            yield self._spoken(tokens[start : start + MAX_TOKENS], asked)
        if tokens:
            mark = text.rstrip('"”’)）」 ')[-1:].translate(_PLAIN)
            pause_ms = round(PAUSE_MS.get(mark, 0) / asked.speech_rate)
            yield bytes(pause_ms * RATE_HZ // 1000 * 2)

    def _spoken(self, tokens: list[int], asked: SpeechOptions) -> bytes:
        style = self._style(asked.voice)
        inputs = {
            self._tokens_name: np.array([[0, *tokens, 0]], np.int64),
            "style": style[min(len(tokens), len(style)) - 1 : min(len(tokens), len(style))],
            "speed": np.array([asked.speech_rate], np.float32),
        }
        samples = np.ravel(self._session.run(None, inputs)[0])
        loud = np.flatnonzero(np.abs(samples) > SILENT)
        if not len(loud):
            return b""
        margin = MARGIN_MS * RATE_HZ // 1000
        kept = samples[max(0, loud[0] - margin) : loud[-1] + margin]
        pcm: bytes = (np.clip(kept, -1, 1) * 32767).astype("<i2").tobytes()
        return pcm

    def _style(self, voice: str) -> NDArray[np.float32]:
        """Return a voice's styles, [lengths, 256]."""
        if voice not in self._styles:
            style = self._published_style(voice)
            other = self._published_style(PROSODY_OF.get(voice, voice))
            if style is not None and other is not None and len(other) >= len(style):
                style[:, PROSODY_AT:] = other[: len(style), PROSODY_AT:]
            if style is None:
                raise ValueError(f"there is no voice {voice!r}")
            self._styles[voice] = style
        return self._styles[voice]

    def _published_style(self, voice: str) -> NDArray[np.float32] | None:
        """Read a voice's styles, [lengths, 256]; None if there is no such voice."""
        if self._voices_at.is_dir():
            path = self._voices_at / f"{voice}.bin"
            if not path.is_file():
                return None
            numbers = np.fromfile(path, "<f4")
        else:
            with np.load(self._voices_at) as archive:
                if voice not in archive.files:
                    return None
                numbers = archive[voice].astype(np.float32)
        return numbers.reshape(-1, STYLE)

    def _any_voice(self) -> str:
        if self._voices_at.is_dir():
            return min(file.stem for file in self._voices_at.glob("[abz]*.bin"))
        with np.load(self._voices_at) as archive:
            first: str = min(name for name in archive.files if name[0] in "abz")
            return first


def main() -> None:
    """Serve sentences; the argument is `KokoroOptions` as JSON."""
    options = KokoroOptions(**orjson.loads(sys.argv[1]))

    def load() -> Any:
        speaker = KokoroSpeaker(options)
        return lambda asked: SpeechJob(speaker.speak, asked)

    serve(load, niceness=options.niceness)


if __name__ == "__main__":
    main()
