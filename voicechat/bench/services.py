"""The bench's services as plug-ins: ``provider = "voicechat.bench.services:open_recognizer"``.

Each call gets a script of its own: a script records what it was asked, and one that served a whole bench would look
like a leak of the server.
"""

from collections.abc import AsyncIterator

from voicechat.bench.lateness import LATENESS
from voicechat.bench.script import CHUNK_MS, DELAYS, FIRST_SENTENCE, LATER_SENTENCES, MS_PER_CHARACTER, WORD_MS, WORDS
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    RecognitionOptions,
    ReplyPart,
    SpeechRecognizer,
    SpeechSynthesizer,
    VoiceOptions,
)
from voicechat.session.vocabulary import Transcript
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer


class _Recognizer:
    def recognize(self, audio: AsyncIterator[bytes], options: RecognitionOptions) -> AsyncIterator[Transcript]:
        script = ScriptedRecognizer(texts=(WORDS,), word_ms=WORD_MS, final_ms=DELAYS.asr_final_ms)
        return LATENESS.watch_final(audio, lambda heard: script.recognize(heard, options), DELAYS.asr_final_ms)


class _Model:
    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        deltas = (*FIRST_SENTENCE, *LATER_SENTENCES)
        script = ScriptedModel((deltas,), first_ms=DELAYS.first_token_ms, delta_ms=DELAYS.delta_ms)
        return LATENESS.watch("model", script.reply(request), DELAYS.first_deltas_ms)


RATE_HZ = 22_050
"""As the embedded synthesiser's, and the default output's: nothing needs resampling."""


class _Synthesizer:
    voices = ("scripted",)

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        script = ScriptedSynthesizer(
            rate_hz=RATE_HZ,
            ms_per_character=MS_PER_CHARACTER,
            first_ms=DELAYS.tts_first_ms,
            chunk_delay_ms=DELAYS.tts_chunk_ms,
            chunk_ms=CHUNK_MS,
        )
        return LATENESS.watch("synthesizer", script.synthesize(text, voice), (DELAYS.tts_first_ms,))


def open_recognizer() -> SpeechRecognizer:
    """Open the recogniser that always understands the same."""
    return _Recognizer()


def open_chat_model() -> ChatModel:
    """Open the model that always answers the same."""
    return _Model()


def open_synthesizer() -> SpeechSynthesizer:
    """Open the synthesiser of a steady tone."""
    return _Synthesizer()
