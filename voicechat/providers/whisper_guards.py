"""Distinguishes speech from the text that Whisper writes for silence, music and noise.

Whisper was trained on films. For sounds without speech it writes text that films
contain at such places: "Thanks for watching", a credit, a line that repeats for ever.
"""

import re
import zlib

NO_SPEECH, UNSURE = 0.6, -1.0
"""Audio whose ``no_speech_prob`` is above the first and whose ``avg_logprob`` is below
the second is silence: Whisper's own ``no_speech_threshold`` and ``logprob_threshold``
(openai/whisper, transcribe.py).
"""
NO_SPEECH_OF_SIGN_OFF = 0.1
"""The ``no_speech_prob`` above which a sign-off ("thanks for watching") is silence. For
a spoken one the probability is near 0.
"""
REPETITIVE = 2.4
"""Whisper's ``compression_ratio_threshold``: text that zlib compresses further than
this repeats itself.
"""

_PHRASE_AGAIN = re.compile(r"(.{6,}?)\1{2}", re.DOTALL)
"""A phrase three times in a row. Three repetitions of a short text do not compress
further than other texts.
"""

_SIGN_OFF = re.compile(
    r"\W*(?:(?:thanks|thank you)(?: (?:so|very) much)? for (?:watching|listening)(?: and .{0,40})?"
    r"|(?:please )?(?:like and )?subscribe(?: to (?:my|our|the) channel)?"
    r"|(?:感谢|感謝|谢谢|謝謝)(?:大家|您|你)?的?(?:观看|觀看|收看|收听)"
    r"|请不吝点赞.{0,30}|請不吝點贊.{0,30}"
    r"|ご視聴ありがとうございま(?:した|す)|시청해\s?주셔서 감사합니다)\W*",
    re.IGNORECASE,
)


def is_sign_off(text: str) -> bool:
    """Return whether the whole text is only a farewell to the viewers of a film."""
    return _SIGN_OFF.fullmatch(text) is not None


def is_silence(no_speech: float, avg_logprob: float, *, sign_off: bool) -> bool:
    """Return whether Whisper itself would drop the audio, or is unsure and wrote only a
    sign-off.
    """
    if sign_off and no_speech > NO_SPEECH_OF_SIGN_OFF:
        return True
    return no_speech > NO_SPEECH and avg_logprob < UNSURE


def is_repetitive(text: str) -> bool:
    """Return whether the text repeats itself, as a decoder does that has lost the
    audio.
    """
    if _PHRASE_AGAIN.search(text):
        return True
    written = text.encode("utf-8", "replace")
    return len(written) / len(zlib.compress(written)) > REPETITIVE
