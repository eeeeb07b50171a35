"""The child process of the ``piper`` provider: one voice file."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from piper import PiperVoice
from piper.config import PiperConfig, SynthesisConfig

from voicechat.processes.child import serve
from voicechat.providers.model_speech import SpeechJob, SpeechOptions
from voicechat.providers.onnx_session import open_session
from voicechat.providers.piper import PiperOptions


class PiperSpeaker:
    """The loaded voice."""

    def __init__(self, options: PiperOptions) -> None:
        """Load the voice. Raises the errors of piper-tts and onnxruntime."""
        config = PiperConfig.from_dict(json.loads(Path(options.model + ".json").read_text("utf-8")))
        session = open_session(options.model, options.threads)
        self._voice = PiperVoice(session=session, config=config)
        self._speakers = options.speakers
        first = next(iter(options.speakers))
        for _ in self.speak("one", SpeechOptions(voice=first, speech_rate=1.0)):
            pass  # warm up: a user's first sentence is then as fast as later ones

    def speak(self, text: str, asked: SpeechOptions) -> Iterator[bytes]:
        """Speak a clause, sentence by sentence."""
        config = self._voice.config
        settings = SynthesisConfig(
            speaker_id=self._speakers[asked.voice] if config.num_speakers > 1 else None,
            length_scale=config.length_scale / asked.speech_rate,
        )
        # Piper reads text in double square brackets as phonemes.
        for chunk in self._voice.synthesize(text.replace("[[", "[ ["), settings):
            yield chunk.audio_int16_bytes


def main() -> None:
    """Serve sentences; the argument is `PiperOptions` as JSON."""
    options = PiperOptions(**orjson.loads(sys.argv[1]))

    def load() -> Any:
        speaker = PiperSpeaker(options)
        return lambda asked: SpeechJob(speaker.speak, asked)

    serve(load, niceness=options.niceness)


if __name__ == "__main__":
    main()
