"""Volume, speed and pitch, measured."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.formats.material import RATE_HZ, samples, speech
from voicechat.audio.gain import Gain
from voicechat.audio.prosody import ProsodyFilter
from voicechat.providers.espeak import VOICES, EspeakSynthesizer, open_synthesizer
from voicechat.providers.interfaces import AudioChunk, VoiceOptions
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.prosody import ProsodySynthesizer
from voicechat.runtime.reply_task import ReplyTask
from voicechat.session.effects import StartReply
from voicechat.session.events import Event, SpeechSynthesized
from voicechat.session.types import ChatSettings, VoiceSettings
from voicechat.testing.scripted import ScriptedModel, ScriptedSynthesizer

SENTENCE = "The rain in Spain stays mainly in the plain, they say again and again, all day long."
SEED_VOICES = (
    "longwan longcheng longhua longxiaochun longxiaoxia longxiaocheng longxiaobai longlaotie "
    "longshu longshuo longjing "
    "longyue loongstella loongbella"
).split()


def fundamental_hz(signal: NDArray[np.float64], rate_hz: int) -> float:
    """The median over voiced stretches of 120 ms, by autocorrelation."""
    size, found = rate_hz * 120 // 1000, []
    for at in range(0, len(signal) - size, size // 2):
        stretch = signal[at : at + size] - signal[at : at + size].mean()
        if np.sqrt(np.mean(stretch**2)) < 500:
            continue
        likeness = np.correlate(stretch, stretch, "full")[size - 1 :]
        shortest, longest = rate_hz // 600, rate_hz // 30
        period = shortest + int(np.argmax(likeness[shortest:longest]))
        if likeness[period] > 0.5 * likeness[0]:
            found.append(rate_hz / period)
    return float(np.median(found))


# --- volume ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("volume", "level_db"), [(100, 6.02), (80, 4.08), (50, 0), (25, -6.02), (5, -20)]
)
def test_volume_changes_the_level_by_its_law(volume: float, level_db: float) -> None:
    quiet = (samples(speech()) / 4).astype("<i2").tobytes()
    changed = samples(Gain(volume).apply(quiet))
    ratio = np.sqrt(np.mean(changed**2) / np.mean(samples(quiet) ** 2))
    assert 20 * np.log10(ratio) == pytest.approx(level_db, abs=0.1)


def test_volume_0_is_silence_and_50_changes_no_byte() -> None:
    assert not any(Gain(0).apply(speech()))
    assert Gain(50).apply(speech()) == speech()


def test_loud_speech_made_louder_stays_within_full_scale_and_bends_smoothly() -> None:
    ramp = np.arange(-32768, 32768).astype("<i2").tobytes()
    louder = samples(Gain(100).apply(ramp))
    steps = np.diff(louder)
    assert 32000 < louder.max() <= 32767
    assert steps.min() >= 0  # louder stays louder
    assert steps.max() <= 2.5  # and nothing jumps


async def test_a_reply_comes_at_the_volume_asked_for() -> None:
    synthesizer, events = ScriptedSynthesizer(), list[Event]()
    start = StartReply(
        1, (), ChatSettings(), VoiceSettings(format="PCM_16000HZ_MONO_16BIT", volume=25)
    )

    async def room() -> None:
        """There is always room."""

    turn = ReplyTask(
        start,
        ScriptedModel([["Hello."]]),
        synthesizer,
        threads=EncodingThreads(),
        post=events.append,
        room=room,
    )
    turn.speak(0, "Hello.")
    turn.finish_speech()
    await turn.run()
    pcm = b"".join(
        b"".join(event.packets) for event in events if isinstance(event, SpeechSynthesized)
    )
    (as_it_comes,) = {
        chunk.pcm[:2] async for chunk in synthesizer.synthesize("Hello.", VoiceOptions())
    }
    # The silence after a sentence pushes it out of the encoder.
    assert set(samples(pcm)) - {0} == {samples(as_it_comes)[0] / 2}


# --- speed and pitch by signal processing ---------------------------------------------


def shaped(pcm: bytes, speech_rate: float, pitch_rate: float, piece_bytes: int = 3200) -> bytes:
    shaping = ProsodyFilter(RATE_HZ, speech_rate, pitch_rate)
    out = [shaping.push_audio(pcm[at : at + piece_bytes]) for at in range(0, len(pcm), piece_bytes)]
    return b"".join([*out, shaping.finish_stream()])


@pytest.mark.parametrize(
    ("speech_rate", "pitch_rate"),
    [(0.5, 1), (0.8, 1), (1.5, 1), (2, 1), (1, 0.5), (1, 1.3), (1, 2), (2, 0.5), (0.5, 2)],
)
def test_finished_speech_is_changed_in_length_and_pitch_by_the_rates(
    speech_rate: float, pitch_rate: float
) -> None:
    usual = speech("en-us+f3")
    changed = shaped(usual, speech_rate, pitch_rate)
    assert len(changed) == pytest.approx(len(usual) / speech_rate, rel=0.01)
    before_hz, after_hz = (fundamental_hz(samples(pcm), RATE_HZ) for pcm in (usual, changed))
    assert after_hz / before_hz == pytest.approx(pitch_rate, rel=0.06)


def test_the_cut_of_the_chunks_leaves_no_click() -> None:
    phase = 2 * np.pi * 300 * np.arange(RATE_HZ) / RATE_HZ
    tone = (np.sin(phase) * 10000).astype("<i2").tobytes()
    changed = samples(shaped(tone, 1.2, 1.1, piece_bytes=998))[2000:-2000]
    assert np.abs(np.diff(changed)).max() < 10000 * 2 * np.pi * 330 / RATE_HZ * 1.1


# --- speed and pitch by the synthesiser -----------------------------------------------


@pytest.fixture
async def espeak() -> AsyncIterator[EspeakSynthesizer]:
    synthesizer = open_synthesizer()
    yield synthesizer
    await synthesizer.aclose()


async def spoken(
    synthesizer: EspeakSynthesizer, voice: VoiceOptions
) -> tuple[NDArray[np.float64], int]:
    chunks = [chunk async for chunk in synthesizer.synthesize(SENTENCE, voice)]
    return samples(b"".join(chunk.pcm for chunk in chunks)), chunks[0].rate_hz


@pytest.mark.real_time
@pytest.mark.parametrize("speech_rate", [0.5, 1.5, 2])
async def test_espeak_speaks_at_the_rate(espeak: EspeakSynthesizer, speech_rate: float) -> None:
    usual, _ = await spoken(espeak, VoiceOptions())
    changed, _ = await spoken(espeak, VoiceOptions(speech_rate=speech_rate))
    assert len(usual) / len(changed) == pytest.approx(speech_rate, rel=0.2)


@pytest.mark.real_time
@pytest.mark.parametrize("voice", ["en-us", "longxiaochun"])
@pytest.mark.parametrize(
    ("pitch_rate", "reached"), [(0.5, 0.6), (0.75, 0.75), (1.5, 1.5), (2, 1.75)]
)
async def test_espeak_speaks_at_the_pitch_as_far_as_it_reaches(
    espeak: EspeakSynthesizer, voice: str, pitch_rate: float, reached: float
) -> None:
    usual, rate_hz = await spoken(espeak, VoiceOptions(voice=voice))
    changed, _ = await spoken(espeak, VoiceOptions(voice=voice, pitch_rate=pitch_rate))
    assert fundamental_hz(changed, rate_hz) / fundamental_hz(usual, rate_hz) == pytest.approx(
        reached, rel=0.06
    )
    assert len(changed) == pytest.approx(len(usual), rel=0.03)


@pytest.mark.parametrize("voice", SEED_VOICES)
def test_the_documents_voices_are_ours(voice: str) -> None:
    assert voice in VOICES


@pytest.mark.real_time
async def test_women_and_men_are_told_apart(espeak: EspeakSynthesizer) -> None:
    woman, rate_hz = await spoken(espeak, VoiceOptions(voice="longxiaochun"))
    man, _ = await spoken(espeak, VoiceOptions(voice="longcheng"))
    assert fundamental_hz(woman, rate_hz) > 1.7 * fundamental_hz(man, rate_hz)


# --- who does it ----------------------------------------------------------------------


class Asked(ScriptedSynthesizer):
    """Notes what it is asked for."""

    asked: VoiceOptions | None = None

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        self.asked = voice
        async for chunk in super().synthesize(text, voice):
            yield chunk


class Shaping(Asked):
    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        return pitch_rate < 2


@pytest.mark.real_time
@pytest.mark.parametrize(("able", "asked_rate", "length_ms"), [(True, 2.0, 500), (False, 1.0, 250)])
async def test_what_the_synthesiser_cannot_do_is_done_for_it(
    able: bool, asked_rate: float, length_ms: int
) -> None:
    synthesizer = Shaping() if able else Asked()
    threads = EncodingThreads()
    speech_of = ProsodySynthesizer(
        synthesizer, VoiceSettings(voice="scripted", speech_rate=2), threads
    )
    chunks = [chunk async for chunk in speech_of.synthesize("ten letters"[:10])]
    threads.close()
    assert synthesizer.asked == VoiceOptions(voice="scripted", speech_rate=asked_rate)
    assert sum(len(chunk.pcm) for chunk in chunks) / 32 == pytest.approx(length_ms, rel=0.1)
    assert synthesizer.open == 0


@pytest.mark.real_time
@pytest.mark.parametrize("rate", [0.5, 2])
async def test_what_espeak_cannot_reach_is_reached_all_the_same(
    espeak: EspeakSynthesizer, rate: float
) -> None:
    threads = EncodingThreads()

    async def said(**wishes: float) -> tuple[NDArray[np.float64], int]:
        speech = ProsodySynthesizer(espeak, VoiceSettings(voice="en-us", **wishes), threads)  # type: ignore[arg-type]
        chunks = [chunk async for chunk in speech.synthesize(SENTENCE)]
        return samples(b"".join(chunk.pcm for chunk in chunks)), chunks[0].rate_hz

    usual, rate_hz = await said()
    pitched, _ = await said(pitch_rate=rate)
    hurried, _ = await said(speech_rate=rate)
    threads.close()
    assert fundamental_hz(pitched, rate_hz) / fundamental_hz(usual, rate_hz) == pytest.approx(
        rate, rel=0.06
    )
    assert len(usual) / len(hurried) == pytest.approx(rate, rel=0.03)
