"""Chooses a voice for each sentence by the language that it is written in."""

from collections.abc import AsyncIterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Self

from voicechat.providers.interfaces import AudioChunk, SpeechSynthesizer, VoiceOptions
from voicechat.providers.wrapping import WrappingSynthesizer, as_synthesizer
from voicechat.text.language import language_of


@dataclass(frozen=True, slots=True)
class LanguageVoice:
    """A synthesiser and one of its voices. An empty voice means the default."""

    synthesizer: SpeechSynthesizer
    voice: str = ""


class LanguageVoices(WrappingSynthesizer):
    """A `SpeechSynthesizer` around another one, which speaks the languages that have no
    voice of their own.

    If the client names a voice of the service, that voice speaks every sentence. The
    default voice does not count as named, because it also replaces unknown names. A
    sentence without letters, such as a number, is spoken in the language of the one
    before it in the reply.
    """

    def __init__(
        self, synthesizer: SpeechSynthesizer, by_language: Mapping[str, LanguageVoice]
    ) -> None:
        """The keys of ``by_language`` are the results of `language_of`."""
        super().__init__(synthesizer)
        self._by_language = dict(by_language)
        self._language = ""

    @property
    def service(self) -> SpeechSynthesizer:
        """The wrapped synthesiser."""
        return self._inner

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak a sentence with the voice of its language."""
        self._language = language_of(text) or self._language
        chosen = self._by_language.get(self._language)
        if chosen is None or voice.voice in self._inner.voices[1:]:
            return self._inner.synthesize(text, voice)
        return chosen.synthesizer.synthesize(text, replace(voice, voice=chosen.voice))

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether all voices support these rates."""
        services = (self._inner, *(chosen.synthesizer for chosen in self._by_language.values()))
        return all(
            as_synthesizer(service).shapes_prosody(speech_rate, pitch_rate) for service in services
        )

    def for_one_reply(self) -> Self:
        """Return a copy around the synthesisers for one reply, which remembers the
        language of the sentence before.
        """
        around = copy(self)
        around._inner = as_synthesizer(self._inner.for_one_reply())
        around._by_language = {
            language: replace(
                chosen, synthesizer=as_synthesizer(chosen.synthesizer).for_one_reply()
            )
            for language, chosen in self._by_language.items()
        }
        return around
