"""Character classes for cutting and counting text."""

import re
import unicodedata

HAN_RANGES = (
    "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
)
"""The Unicode script Han (including the gaps in its blocks), for use within the
brackets of a regular expression.
"""

_HAN = re.compile(f"[{HAN_RANGES}]")
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Myanmar, Khmer
    "\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f]"  # kana, Bopomofo
)
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]")

SENTENCE_MARKS = frozenset(".!?。！？；…⋯｡।؟۔")
"""Punctuation that may end a sentence."""
FULL_MARKS = frozenset("。！？；｡।؟۔")
"""Punctuation that always ends a sentence. For the others, the next character decides.
"""
CLAUSE_MARKS = frozenset(",;:，、：،؛—")
FULL_CLAUSE_MARKS = frozenset("，、：،؛—")
OPENERS = frozenset("“‘「『（《〈【〔［([{«")
CLOSERS = frozenset("”’」』）》〉】〕］)]}»")
"""Opening and closing brackets and quotation marks. The straight ``"`` is in neither
set: only its context decides.
"""

_NEVER_FIRST = frozenset("々ー゛゜ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶะาำๆฯ")
"""Letters that attach to the one before: iteration and length marks, small kana, Thai
vowels that follow their consonant.
"""
_NEVER_LAST = frozenset("เแโใไ")
"""Thai vowels that are written before their consonant."""


_SILENT_CATEGORIES = frozenset({"Cf", "Cc", "Co", "Cs", "Cn"})
_JOINERS = frozenset("\u200c\u200d")


def is_han(char: str) -> bool:
    """Return whether this is a Chinese character (including kanji and hanja)."""
    return char >= "\u2e80" and _HAN.match(char) is not None


def stands_alone(char: str) -> bool:
    """Return whether this is a letter of a script written without spaces: Han, kana,
    Thai and similar.

    Without a dictionary, each such letter counts as a word. Hangul is written with
    spaces, so it is not among them.
    """
    if char < "\u0e01":
        return False
    return is_han(char) or (
        char.isalnum() and not char.isdigit() and _UNSPACED.match(char) is not None
    )


def is_cjk(char: str) -> bool:
    """Return whether no space is written beside this character: a letter that stands
    alone, or CJK punctuation.
    """
    return stands_alone(char) or "\u3000" <= char <= "\u303f" or "\uff00" <= char <= "\uffef"


def is_latin(char: str) -> bool:
    """Return whether this is a Latin letter of any width, diacritics included."""
    return _LATIN.match(char) is not None


def is_mark(char: str) -> bool:
    """Return whether this combines with the letter before it: accents, vowel signs,
    variation selectors.
    """
    return char >= "\u0300" and unicodedata.category(char)[0] == "M"


def is_wide(char: str) -> bool:
    """Return whether this takes two columns (Unicode Standard Annex 11): Han, kana,
    Hangul, full-width forms, emoji.
    """
    return char >= "\u1100" and unicodedata.east_asian_width(char) in "WF"


def may_cut_between(left: str, right: str) -> bool:
    """Return whether a line may break between two letters, at least one of which is of
    a script without spaces.
    """
    if right in _NEVER_FIRST or left in _NEVER_LAST:
        return False
    if stands_alone(right):
        return stands_alone(left) or left.isalpha() or is_mark(left)
    return stands_alone(left) and right.isalpha()


def strip_unspeakable(text: str) -> str:
    """Remove control and formatting characters and those without an agreed meaning.
    White space stays.

    The zero-width joiner and non-joiner stay beside letters of the scripts whose
    spelling needs them: Arabic, Syriac and those of India.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char for at, char in enumerate(text) if _sounds(char, text[max(0, at - 1) : at]))


def _sounds(char: str, before: str) -> bool:
    if char in _JOINERS:
        return "\u0600" <= before < "\u1000"
    return char.isspace() or unicodedata.category(char) not in _SILENT_CATEGORIES
