"""Text to the phonemes that Kokoro was trained with, English and Chinese mixed.

English by espeak-ng, which reads digits and every unknown word, in misaki's notation
(Kokoro's own text front end, github.com/hexgrad/misaki, Apache-2.0). Chinese by WeText,
which reads numbers, dates, times, amounts and units, jieba for the words, and misaki
for their syllables.
"""

import logging
import re
from collections.abc import Callable, Iterable
from functools import cache

from voicechat.providers.espeak_library import EspeakLibrary, open_library
from voicechat.text.characters import HAN_RANGES, is_han
from voicechat.text.words import Script, runs_by_script

SYMBOLS = {
    symbol: first + place
    for first, symbols in (
        (1, ";:,.!?"),
        (9, '—…"()“” \u0303ʣʥʦʨᵝꭧAI'),
        (31, "O"),
        (33, "Q"),
        (35, "ST"),
        (39, "W"),
        (41, "Yᵊabcdef"),
        (50, "hijklmnopqrstuvwxyzɑɐɒæ"),
        (75, "βɔɕç"),
        (80, "ɖðʤə"),
        (85, "ɚɛɜ"),
        (90, "ɟ"),
        (92, "ɡ"),
        (99, "ɥ"),
        (101, "ɨɪʝ"),
        (110, "ɯɰŋɳɲɴø"),
        (118, "ɸθœ"),
        (123, "ɹ"),
        (125, "ɾɻ"),
        (128, "ʁɽʂʃʈʧ"),
        (135, "ʊʋ"),
        (138, "ʌɣɤ"),
        (142, "χʎ"),
        (147, "ʒʔ"),
        (156, "ˈˌː"),
        (162, "ʰ"),
        (164, "ʲ"),
        (169, "↓"),
        (171, "→↗↘"),
        (177, "ᵻ"),
    )
    for place, symbol in enumerate(symbols)
}
"""The model's input for each phoneme and punctuation mark (``vocab`` in the published
config.json of Kokoro-82M).
"""

ESPEAK_VOICES = {
    "a": "en-us",
    "b": "en",
    "e": "es",
    "f": "fr",
    "h": "hi",
    "i": "it",
    "p": "pt-br",
    "z": "en-us",
}
"""The espeak-ng voice for text that is not Chinese, by the first letter of Kokoro's
voice. Japanese voices ("j") are missing, because espeak-ng does not read kanji.
"""

_PLAIN_MARKS = str.maketrans(
    {
        "，": ",", "、": ",", "。": ".", "．": ".", "！": "!", "？": "?", "：": ":", "；": ";",
        "（": "(", "）": ")", "《": "“", "》": "”", "「": "“", "」": "”", "【": "“", "】": "”",
        "«": "“", "»": "”", "\u2018": "'", "\u2019": "'", "⋯": "…",
    }
)  # fmt: skip
_CLAUSE = re.compile(r"([^;:,.!?—…()“”]+(?:[.,:](?=\w)[^;:,.!?—…()“”]*)*)|([;:,.!?—…()“”]+)")
"""Words, or marks. A full stop, comma or colon within a number or a name is not a mark.
"""
_HAN_RUN = re.compile(f"([{HAN_RANGES}]+)|([^{HAN_RANGES}]+)")
_REMARK = re.compile(r"\([^)]*\)")
_MEASURE = re.compile(
    r"\d+(?:\.\d+)?\s*(?:km/h|m/s|km²|m²|cm²|km|kg|cm|mm|ml|mL|m|g|kW|GB|MB)(?![A-Za-z])"
)

_ENGLISH = tuple(
    sorted(
        {
            "ʔˌn\u0329": "ʔn", "ʔn\u0329": "ʔn", "a^ɪ": "I", "a^ʊ": "W", "d^ʒ": "ʤ", "e^ɪ": "A",
            "e": "A", "t^ʃ": "ʧ", "ɔ^ɪ": "Y", "ə^l": "ᵊl", "ʲo": "jo", "ʲə": "jə", "ʲ": "",
            "ɚ": "əɹ", "r": "ɹ", "x": "k", "ç": "k", "ɐ": "ə", "ɬ": "l", "\u0303": "",
        }.items(),
        key=lambda pair: -len(pair[0]),
    )
)  # fmt: skip
_AMERICAN = (("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""))
_BRITISH = (("e^ə", "ɛː"), ("iə", "ɪə"), ("ə^ʊ", "Q"))
_AFTER_ENGLISH = (("o", "ɔ"), ("ɾ", "T"), ("ʔ", "t"), ("^", ""))
_OTHERS = (
    ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^z", "ʣ"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("o^ʊ", "O"),
    ("ə^ʊ", "Q"), ("s^s", "S"), ("t^s", "ʦ"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("^", ""), ("-", ""),
)  # fmt: skip
"""espeak-ng's IPA, diphthongs and affricates tied by ^, to misaki's letters, in this
order (misaki/espeak.py).
"""


def tokens_of(text: str, kokoro_voice: str) -> list[int]:
    """Return the model's input for a text; empty if the text has nothing to speak.

    Blocks for a few milliseconds, and for one to two seconds at the first Chinese text.
    Raises `ProviderError` when espeak-ng cannot be used.
    """
    return [SYMBOLS[symbol] for symbol in phonemes_of(text, kokoro_voice) if symbol in SYMBOLS]


def phonemes_of(text: str, kokoro_voice: str) -> str:
    """Return the phonemes of a text with its punctuation."""
    espeak_voice = ESPEAK_VOICES[kokoro_voice[0]]
    if any(map(is_han, text)):
        text = _MEASURE.sub(lambda found: _normalised(found[0]), text)

    def by_chinese(run: str) -> bool:
        return kokoro_voice[0] == "z" and not any(map(str.isalpha, run))

    spoken: list[str] = []
    for script, run in runs_by_script(text):
        if script is Script.HAN or (script is Script.OTHER and by_chinese(run)):
            spoken.append(_chinese(run))
        else:
            spoken.append(_by_espeak(run, espeak_voice))
    return re.sub(r"\s+", " ", " ".join(spoken)).strip()


def _by_espeak(text: str, voice: str) -> str:
    library = _espeak()
    said = ""
    for words, marks in _CLAUSE.findall(text.translate(_PLAIN_MARKS)):
        if marks:
            opens = marks[-1] in "(“"
            marks = re.sub(r"(.)\1+", r"\1", marks)
            said = f"{said.rstrip()} {marks}" if opens else f"{said.rstrip()}{marks} "
        elif any(map(str.isalnum, words)):
            ipa = _REMARK.sub("", library.phonemes(words, voice, tie="^"))
            said += _misaki_notation(ipa, voice).strip() + " "
    return said


def _misaki_notation(ipa: str, voice: str) -> str:
    if voice not in ("en", "en-us"):
        return _replaced(ipa, _OTHERS)
    ipa = _replaced(ipa, _ENGLISH)
    # A syllabic consonant gets the schwa before it.
    ipa = re.sub(r"(\S)\u0329", r"ᵊ\1", ipa).replace("\u0329", "")
    ipa = _replaced(ipa, _BRITISH if voice == "en" else _AMERICAN)
    return _replaced(ipa, _AFTER_ENGLISH)


def _replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def _chinese(text: str) -> str:
    cut, ipa_of = _misaki()
    said = ""
    for han, other in _HAN_RUN.findall(_normalised(text).translate(_PLAIN_MARKS)):
        said += " ".join(map(ipa_of, cut(han))) if han else other
        if other.strip():
            said = said.rstrip() + " "
    return said


def _normalised(text: str) -> str:
    return _normaliser()(text)


@cache
def _espeak() -> EspeakLibrary:
    return open_library()


@cache
def _normaliser() -> Callable[[str], str]:
    from wetext import Normalizer

    normalize: Callable[[str], str] = Normalizer(lang="zh", operator="tn").normalize
    return normalize


@cache
def _misaki() -> tuple[Callable[[str], list[str]], Callable[[str], str]]:
    """Return a function that cuts Chinese characters into words, and one that
    pronounces a word.
    """
    import jieba
    from misaki.zh import ZHG2P

    jieba.setLogLevel(logging.WARNING)  # it logs about its cache

    def ipa_of(word: str) -> str:
        # As in misaki: Kokoro has no symbol for the mark under a retroflex vowel.
        ipa: str = ZHG2P.word2ipa(word).replace("\u032f", "")
        return ipa

    return jieba.lcut, ipa_of
