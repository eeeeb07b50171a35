from collections.abc import AsyncIterator

from voicechat.providers.interfaces import AudioChunk, SynthesizerProvider, VoiceOptions
from voicechat.runtime.language_voices import LanguageVoice, LanguageVoices
from voicechat.testing.conformance import check_synthesizer


class NotingVoice(SynthesizerProvider):
    """Notes what it speaks, and with which voice."""

    def __init__(self, *voices: str, shapes: bool = True) -> None:
        self._voices = voices
        self._shapes = shapes
        self.spoken: list[tuple[str, str]] = []

    @property
    def voices(self) -> tuple[str, ...]:
        return self._voices

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        return self._shapes

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        self.spoken.append((text, voice.voice))
        if any(map(str.isalnum, text)):
            yield AudioChunk(b"\x01\x00" * 160, 16_000)


async def speak(voices: SynthesizerProvider, *sentences: str, voice: str = "") -> None:
    for text in sentences:
        async for _ in voices.synthesize(text, VoiceOptions(voice=voice)):
            pass


async def test_each_sentence_has_the_voice_of_its_language() -> None:
    english, chinese = NotingVoice("joe"), NotingVoice("xiaobei", "yunxi")
    voices = LanguageVoices(english, {"zh": LanguageVoice(chinese, "yunxi")})
    await speak(voices, "Hello.", "你好，Joe。", "25.", "And in English.", "26.")
    assert english.spoken == [("Hello.", ""), ("And in English.", ""), ("26.", "")]
    assert chinese.spoken == [("你好，Joe。", "yunxi"), ("25.", "yunxi")]


async def test_a_voice_that_the_client_names_speaks_everything() -> None:
    english, chinese = NotingVoice("joe", "amy"), NotingVoice("xiaobei")
    voices = LanguageVoices(english, {"zh": LanguageVoice(chinese)})
    await speak(voices, "你好。", voice="amy")
    # A name of another vendor's is none.
    await speak(voices, "再见。", voice="alloy")
    # The default is what is picked for a client that names none, or one of another
    # service.
    await speak(voices, "走吧。", voice="joe")
    assert english.spoken == [("你好。", "amy")]
    assert chinese.spoken == [("再见。", ""), ("走吧。", "")]


async def test_replies_do_not_share_the_language_of_their_last_sentence() -> None:
    english, chinese = NotingVoice("joe"), NotingVoice("xiaobei")
    voices = LanguageVoices(english, {"zh": LanguageVoice(chinese)})
    first, second = voices.for_one_reply(), voices.for_one_reply()
    await speak(first, "你好。")
    await speak(second, "25.")
    assert english.spoken == [("25.", "")]


def test_prosody_is_left_to_the_voices_only_if_all_support_it() -> None:
    able, unable = NotingVoice("a"), NotingVoice("b", shapes=False)
    assert LanguageVoices(able, {"zh": LanguageVoice(able)}).shapes_prosody(1.2, 1.0)
    assert not LanguageVoices(able, {"zh": LanguageVoice(unable)}).shapes_prosody(1.2, 1.0)


async def test_it_keeps_the_contract() -> None:
    voices = LanguageVoices(NotingVoice("joe"), {"zh": LanguageVoice(NotingVoice("xiaobei"))})
    await check_synthesizer(voices)
