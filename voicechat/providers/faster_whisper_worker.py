"""The child process of the ``faster_whisper`` provider: one model, one pass at a time.

Whisper was trained on windows of 30 s, and its encoder's work grows with the window.
Here the window is the utterance plus ``MARGIN_S`` of silence, which takes a fifth of
the time for a short utterance. If the decoder repeats itself in a short window (in one
of 11 recordings with a margin of 2 s, in none with 4 s), it is run again with the whole
window.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import orjson
from ctranslate2 import StorageView
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray
from opencc import OpenCC

from voicechat.processes.child import serve
from voicechat.providers.faster_whisper import PROMPTS, PassAnswer, PassOptions, WorkerOptions
from voicechat.providers.whisper_guards import is_repetitive, is_sign_off, is_silence

RATE_HZ = 16_000
WINDOW_S = 30.0
MARGIN_S = 4.0
TOKENS_PER_S = 12
"""Bound of the text of one second: the fastest Mandarin has 8 characters, which take
this many tokens.
"""
TOKENS_AT_LEAST = 24
SURE, SURE_OF_LITTLE = 0.5, 0.9
LITTLE_S = 1.5
"""Probability from which a detected language replaces that of the user's last
utterance. The second one is for utterances shorter than ``LITTLE_S``, because an
"uh-huh" may be detected as Chinese.
"""
VOICED = 0.5
VOICED_AT_LEAST_MS = 96
"""If Silero's voice detection, which is part of faster-whisper, gives less than this
much of an utterance the probability ``VOICED``, the utterance contains no word and
Whisper is not run. Noise, chords, keypad tones and clicks of 4 s had at most one such
frame; the shortest test recording of speech, of 0.8 s, had 17.
"""
_VAD_SAMPLES = 512
_FEATURES_PER_S = 100
_PROMPT_TOKENS = 100
"""Bound of the prompt: half of what Whisper accepts."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    tokens: list[int]
    text: str
    no_speech: float
    logprob: float
    cut_off: bool

    @property
    def lost(self) -> bool:
        """Whether the decoder has lost the audio."""
        return self.cut_off or is_repetitive(self.text)


class WhisperTranscriber:
    """The loaded model."""

    def __init__(self, options: WorkerOptions) -> None:
        """Load the model. Raises faster-whisper's errors, and `ValueError` for a
        language that the model does not support.
        """
        self._whisper = WhisperModel(
            options.model,
            device="cpu",
            compute_type=options.compute_type,
            cpu_threads=options.threads,
        )
        self._beam_size = options.beam_size
        self._prompt = options.prompt
        self._simplified = options.simplified
        self._languages = options.languages
        self._tokenizers: dict[str, Tokenizer] = {}
        self._voice = get_vad_model()
        known = set(self._whisper.supported_languages)
        for language in options.languages:
            if language not in known:
                raise ValueError(f"language: this model does not know {language!r}")
        self._hear_nothing()

    def transcribe(self, pcm: bytes, asked: PassOptions) -> Iterator[bytes]:
        """Recognise an utterance. Yields an empty answer at each point where the pass
        can be cancelled, and at the end a `PassAnswer` as JSON.
        """
        audio = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        if not self._has_voice(audio):
            yield orjson.dumps(PassAnswer(text="", language=""))
        else:
            yield from self._transcribe(audio, asked)

    def _transcribe(self, audio: NDArray[np.float32], asked: PassOptions) -> Iterator[bytes]:
        seconds = len(audio) / RATE_HZ
        window_s = min(seconds + MARGIN_S, WINDOW_S)
        encoded = self._encode(audio, window_s)
        yield b""
        language = self._language(encoded, seconds, asked)
        decoded = self._decode(encoded, language, seconds)
        if decoded.lost and window_s < WINDOW_S:
            yield b""
            encoded = self._encode(audio, WINDOW_S)
            yield b""
            decoded = self._decode(encoded, language, seconds)
        if decoded.lost:
            decoded = self._decode(encoded, language, seconds, no_repeat=True)
        if self._is_speech(decoded, language):
            answer = PassAnswer(text=self._written(decoded.text, language), language=language)
            if asked.complete:
                yield b""
                pieces = self._times(encoded, decoded.tokens, language, seconds)
                answer = replace(answer, pieces=pieces)
        else:
            answer = PassAnswer(text="", language=language)
        yield orjson.dumps(answer)

    def _has_voice(self, audio: NDArray[np.float32]) -> bool:
        frames = np.pad(audio, (0, -len(audio) % _VAD_SAMPLES))
        voiced = int((np.ravel(self._voice(frames)) >= VOICED).sum())
        return voiced * _VAD_SAMPLES * 1000 / RATE_HZ >= VOICED_AT_LEAST_MS

    def _encode(self, audio: NDArray[np.float32], window_s: float) -> Any:
        """Encode the utterance with silence behind it.

        The silence consists of samples. Zeros after the features would be noise to the
        model: one of ten sentences was then written twice.
        """
        frames = round(window_s * _FEATURES_PER_S)
        frames += frames % 2  # the encoder halves them
        samples = frames * RATE_HZ // _FEATURES_PER_S
        padded = np.pad(audio, (0, max(0, samples - len(audio))))
        features = self._whisper.feature_extractor(padded)[:, :frames]
        return self._whisper.model.encode(
            StorageView.from_array(np.ascontiguousarray(features[np.newaxis]))
        )

    def _language(self, encoded: Any, seconds: float, asked: PassOptions) -> str:
        if not self._whisper.model.is_multilingual:
            return "en"
        if len(self._languages) == 1:
            return self._languages[0]
        found = {
            token[2:-2]: probability
            for token, probability in self._whisper.model.detect_language(encoded)[0]
            if not self._languages or token[2:-2] in self._languages
        }
        best = max(found, key=lambda language: found[language])
        sure = SURE_OF_LITTLE if seconds < LITTLE_S else SURE
        certain = found[best] / sum(found.values()) >= sure
        return best if certain or asked.language not in found else asked.language

    def _decode(
        self, encoded: Any, language: str, seconds: float, *, no_repeat: bool = False
    ) -> _Decoded:
        tokenizer = self._tokenizer(language)
        most = TOKENS_AT_LEAST + round(seconds * TOKENS_PER_S)
        prompt = self._prompt_of(tokenizer, language)
        start = [*prompt, *tokenizer.sot_sequence, tokenizer.no_timestamps]
        result = self._whisper.model.generate(
            encoded,
            [start],
            beam_size=self._beam_size,
            max_length=len(start) + most,
            no_repeat_ngram_size=3 if no_repeat else 0,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = result.sequences_ids[0]
        return _Decoded(
            tokens,
            tokenizer.decode(tokens),
            result.no_speech_prob,
            result.scores[0],
            cut_off=len(tokens) >= most,
        )

    def _prompt_of(self, tokenizer: Tokenizer, language: str) -> Sequence[int]:
        text = self._before(language)
        if not text:
            return ()
        return [tokenizer.sot_prev, *tokenizer.encode(" " + text)[-_PROMPT_TOKENS:]]

    def _before(self, language: str) -> str:
        """Return the preceding text for the model."""
        return self._prompt or (PROMPTS.get(language, "") if self._simplified else "")

    def _written(self, text: str, language: str) -> str:
        text = text.strip()
        return simplified(text) if language == "zh" and self._simplified else text

    def _is_speech(self, decoded: _Decoded, language: str) -> bool:
        text = decoded.text.strip()
        if text and text.strip("。.") in self._before(language):
            # Without speech the model continues, or repeats, what came before.
            return False
        return not is_silence(decoded.no_speech, decoded.logprob, sign_off=is_sign_off(text))

    def _times(
        self, encoded: Any, tokens: list[int], language: str, seconds: float
    ) -> tuple[tuple[str, float, float], ...]:
        """Return the words with begin and end in milliseconds."""
        frames = min(round(seconds * _FEATURES_PER_S), encoded.shape[1] * 2)
        words = self._whisper.find_alignment(
            self._tokenizer(language), [tokens], encoded, max(frames, 2)
        )[0]
        return tuple(
            (
                self._written(word["word"], language),
                float(word["start"]) * 1000,
                float(word["end"]) * 1000,
            )
            for word in words
        )

    def _tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            self._tokenizers[language] = Tokenizer(
                self._whisper.hf_tokenizer,
                self._whisper.model.is_multilingual,
                task="transcribe",
                language=language,
            )
        return self._tokenizers[language]

    def _hear_nothing(self) -> None:
        """Run a first pass, so that a user's first pass is as fast as later ones."""
        silence = np.zeros(RATE_HZ, np.float32)
        self._has_voice(silence)
        for _ in self._transcribe(silence, PassOptions(complete=True)):
            pass


def simplified(text: str) -> str:
    """Return Chinese text in simplified characters."""
    return str(_converter().convert(text))


@cache
def _converter() -> OpenCC:
    return OpenCC("t2s")


class PassJob:
    """One pass; its only payload is the audio."""

    def __init__(self, transcriber: WhisperTranscriber, asked: PassOptions) -> None:
        self._transcriber = transcriber
        self._asked = asked

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Recognise the audio, as `WhisperTranscriber.transcribe`."""
        return self._transcriber.transcribe(payload, self._asked)

    def finish_input(self) -> Sequence[bytes]:
        """Return nothing: everything has been answered."""
        return ()

    def close(self) -> None:
        """Do nothing: a pass holds no resources."""


def main() -> None:
    """Serve passes; the argument is `WorkerOptions` as JSON."""
    options = WorkerOptions(**orjson.loads(sys.argv[1]))

    def load() -> Any:
        transcriber = WhisperTranscriber(options)
        return lambda asked: PassJob(transcriber, PassOptions(**orjson.loads(asked)))

    serve(load, niceness=options.niceness)


if __name__ == "__main__":
    main()
