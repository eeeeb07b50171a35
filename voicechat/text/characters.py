"""Classes of characters, by what they mean for cutting and counting text."""

import re
import unicodedata

HAN_RANGES = (
    "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
)
"""The Unicode script Han (with the gaps in its blocks), to stand between the brackets
of a regular expression.
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
"""Those that end it whatever follows; the others need the next character to decide."""
CLAUSE_MARKS = frozenset(",;:，、：،؛—")
FULL_CLAUSE_MARKS = frozenset("，、：،؛—")
OPENERS = frozenset("“‘「『（《〈【〔［([{«")
CLOSERS = frozenset("”’」』）》〉】〕］)]}»")
"""Brackets and quotation marks, opening and closing. The straight ``"`` is neither:
only its context tells.
"""

_NEVER_FIRST = frozenset("々ー゛゜ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶะาำๆฯ")
"""Letters that belong to the one before them: iteration and length marks, small kana,
Thai vowels that follow.
"""
_NEVER_LAST = frozenset("เแโใไ")
"""Thai vowels that are written before their consonant."""


_SILENT_CATEGORIES = frozenset({"Cf", "Cc", "Co", "Cs", "Cn"})
_JOINERS = frozenset("\u200c\u200d")


def is_han(char: str) -> bool:
    """Whether this is a Chinese character (kanji and hanja included)."""
    return char >= "\u2e80" and _HAN.match(char) is not None


def stands_alone(char: str) -> bool:
    """Whether this letter is of a script written without spaces: Han, kana, Thai and
    its like.

    Such a letter counts as a word, for want of a dictionary. Hangul is written with
    spaces and is not of them.
    """
    if char < "\u0e01":
        return False
    return is_han(char) or (
        char.isalnum() and not char.isdigit() and _UNSPACED.match(char) is not None
    )


def is_cjk(char: str) -> bool:
    """Whether no space is written beside this character: a letter that stands alone, or
    its punctuation.
    """
    return stands_alone(char) or "\u3000" <= char <= "\u303f" or "\uff00" <= char <= "\uffef"


def is_latin(char: str) -> bool:
    """Whether this is a letter of the Latin alphabet, with or without diacritics, of
    any width.
    """
    return _LATIN.match(char) is not None


def is_mark(char: str) -> bool:
    """Whether this combines with the letter before it: accents, vowel signs, variation
    selectors.
    """
    return char >= "\u0300" and unicodedata.category(char)[0] == "M"


def is_wide(char: str) -> bool:
    """Whether this takes two columns (Unicode Standard Annex 11): Han, kana, Hangul,
    full-width forms, emoji.
    """
    return char >= "\u1100" and unicodedata.east_asian_width(char) in "WF"


def may_cut_between(left: str, right: str) -> bool:
    """Whether a line may be broken between two letters, of which at least one is of a
    script without spaces.
    """
    if right in _NEVER_FIRST or left in _NEVER_LAST:
        return False
    if stands_alone(right):
        return stands_alone(left) or left.isalpha() or is_mark(left)
    return stands_alone(left) and right.isalpha()


def strip_unspeakable(text: str) -> str:
    """Remove characters that only format text, control something or have no agreed
    meaning; white space stays.

    The zero-width joiner and non-joiner stay beside letters of the scripts that are
    spelled with them: Arabic, Syriac and those of India.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char for at, char in enumerate(text) if _sounds(char, text[max(0, at - 1) : at]))


def _sounds(char: str, before: str) -> bool:
    if char in _JOINERS:
        return "\u0600" <= before < "\u1000"
    return char.isspace() or unicodedata.category(char) not in _SILENT_CATEGORIES
