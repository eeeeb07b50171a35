"""Counts, joins, times and cuts text by its words, in any mixture of scripts."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum

from voicechat.text.characters import (
    CLAUSE_MARKS,
    OPENERS,
    SENTENCE_MARKS,
    is_cjk,
    is_han,
    is_latin,
    is_mark,
    is_wide,
    stands_alone,
)

HAN_MS = 210
KANA_MS = 130
WIDE_MS = 160
LETTER_MS = 67
DIGIT_MS = 300
CLAUSE_PAUSE_MS = 150
SENTENCE_PAUSE_MS = 300

_INSIDE_WORD = frozenset("'’.,:-_@")
"""Punctuation that joins letters or digits on both sides of it to one word: don't,
3.14, 12:30, well-known.
"""


def usage_characters(text: str) -> int:
    """Return the length as synthesis is billed: a Han character is 2, others 1."""
    return len(text) + sum(map(is_han, text))


def count_words(text: str) -> int:
    """Count the words. Each character of a script without spaces (Han, kana, Thai) is
    one.
    """
    return sum(1 for _ in _word_spans(text))


def join(parts: Iterable[str]) -> str:
    """Strip and join recognised sentences, with a space except beside Chinese, Japanese
    or similar text.
    """
    joined: list[str] = []
    for part in filter(None, map(str.strip, parts)):
        if joined and not is_cjk(joined[-1][-1]) and not is_cjk(part[0]):
            joined.append(" ")
        joined.append(part)
    return "".join(joined)


def speaking_ms(text: str) -> int:
    """Estimate how long it takes to say ``text``, in milliseconds.

    One Han character is one syllable. Readers make 5.18 syllables a second in Mandarin,
    7.84 in Japanese, without silences (Pellegrino, Coupé and Marsico, "A cross-language
    perspective on speech information rate", Language 87:3, 2011); with the short breaks
    within a clause that is about 4.8 Han characters. English at 160 words a minute
    (radio, in Tauroza and Allison, "Speech rates in British English", Applied
    Linguistics 11:1, 1990) with 5.6 characters a word, including the space, is 15
    characters a second. A digit counts as a word. The durations of a pause, a digit and
    a syllable of Hangul are estimates of this project.
    """
    return sum(map(_character_ms, text))


def cut_at_word(text: str, fraction: float) -> str:
    """Return the beginning of ``text`` that was heard when ``fraction`` of its audio
    had been played.

    Rounded down to whole words, by estimated speaking time; the punctuation after the
    last word heard stays with it. Returns the whole text for a fraction of 1 or more,
    and "" for 0, less, or NaN.
    """
    if fraction >= 1:
        return text
    if math.isnan(fraction) or fraction <= 0:
        return ""
    times = list(itertools.accumulate(map(_character_ms, text), initial=0))
    heard = 0
    for _, end in _word_spans(text):
        if times[end] > fraction * times[-1]:
            break
        heard = end
    while 0 < heard < len(text) and _trails(text[heard]):
        heard += 1
    return text[:heard]


class Script(Enum):
    """Scripts that may need different voices of a synthesiser."""

    HAN = "han"
    LATIN = "latin"
    OTHER = "other"


def dominant_script(text: str) -> Script:
    """Return the script of most words, the first one in a tie, or OTHER if there are no
    letters.
    """
    scripts = Counter(filter(None, (_script_of(text[begin]) for begin, _ in _word_spans(text))))
    return scripts.most_common(1)[0][0] if scripts else Script.OTHER


def runs_by_script(text: str) -> list[tuple[Script, str]]:
    """Cut text where its script changes. The joined runs are the text.

    Digits, punctuation and white space belong to the run around them, those at the
    beginning to the first run.
    """
    runs: list[tuple[Script, str]] = []
    begin = 0
    current: Script | None = None
    for index, char in enumerate(text):
        script = _script_of(char)
        if script is None or script is current:
            continue
        if current is not None:
            runs.append((current, text[begin:index]))
            begin = index
        current = script
    if text:
        runs.append((current or Script.OTHER, text[begin:]))
    return runs


def _script_of(char: str) -> Script | None:
    """Return the script of a letter; None for other characters, which belong to their
    neighbours' run.
    """
    if is_han(char):
        return Script.HAN
    if not char.isalpha():
        return None
    return Script.LATIN if is_latin(char) else Script.OTHER


def _character_ms(char: str) -> int:
    if is_han(char):
        return HAN_MS
    if char.isdigit():
        return DIGIT_MS
    if char.isalpha() and is_wide(char):
        return KANA_MS if stands_alone(char) else WIDE_MS
    if char.isalpha() or char.isspace():
        return LETTER_MS
    if char in SENTENCE_MARKS:
        return SENTENCE_PAUSE_MS
    return CLAUSE_PAUSE_MS if char in CLAUSE_MARKS else 0


def _word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each word."""
    index, length = 0, len(text)
    while index < length:
        begin = index
        index += 1
        if stands_alone(text[begin]):
            while index < length and is_mark(text[index]):
                index += 1
        elif text[begin].isalnum():
            while index < length and _continues_word(text, index):
                index += 1
        else:
            continue
        yield begin, index


def _continues_word(text: str, index: int) -> bool:
    """Return whether the character at ``index`` continues the spaced word before it."""
    char = text[index]
    if stands_alone(char):
        return False
    if char.isalnum() or is_mark(char):
        return True
    following = text[index + 1 : index + 2]
    return char in _INSIDE_WORD and following.isalnum() and not stands_alone(following)


def _trails(char: str) -> bool:
    """Return whether a character after a word belongs to it, as its punctuation does,
    but not what opens the next word.
    """
    return not (char.isalnum() or char.isspace() or is_han(char) or char in OPENERS)


def bare_words(text: str) -> str:
    """Reduce ``text`` to its letters and digits, ignoring case, so that different
    spellings of the same words compare equal.
    """
    return "".join(char for char in text.casefold() if char.isalnum())
