"""Aligns a recognised text with times that are given separately, to words with times.

Services differ: some return times of words without the text's punctuation, some times
of sentences, some none. Their words are sometimes half a word, and in Chinese several
characters. So the letters of the timed pieces are aligned with the letters of the text,
and each word takes its times from its own letters.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from voicechat.session.types import Word
from voicechat.text.characters import is_mark, stands_alone
from voicechat.text.words import join, speaking_ms


@dataclass(frozen=True, slots=True)
class TimedText:
    """A piece of the text, of any length, and its times."""

    text: str
    begin_ms: float
    end_ms: float


def timed_words(text: str, pieces: Sequence[TimedText], duration_ms: int) -> tuple[Word, ...]:
    """Cut ``text`` into words. A letter of a script without spaces (Han, kana, Thai) is
    a word.

    ``pieces`` are in the order of the text. If their letters differ from the text's
    (numbers written in two ways), or there are none, ``duration_ms`` is divided by
    estimated speaking time. Times are within 0 to ``duration_ms`` and never go back.
    """
    units = list(_units(text))
    letters = [_letters(unit) for unit, _ in units]
    if [*"".join(letters)] != [char for piece in pieces for char in _letters(piece.text)]:
        pieces = [TimedText(text, 0, duration_ms)]
    times = [span for piece in pieces for span in _letter_times(piece)]
    words: list[Word] = []
    floor_ms = place = 0
    for (unit, punctuation), own in zip(units, letters, strict=True):
        # The bound comes first: for NaN, Python's `max` then returns the bound.
        begin_ms = round(min(duration_ms, max(floor_ms, times[place][0])))
        place += len(own)
        floor_ms = round(min(duration_ms, max(begin_ms, times[place - 1][1])))
        words.append(Word(unit, begin_ms, floor_ms, punctuation))
    return tuple(words)


def text_of(words: Iterable[Word]) -> str:
    """Join words to a text."""
    return join(word.text + word.punctuation for word in words)


def _units(text: str) -> Iterator[tuple[str, str]]:
    """Yield each word with the punctuation after it. Characters before its first letter
    belong to the word.
    """
    held, before = "", ""
    for chunk in text.split():
        for begin, end in _cuts(chunk):
            part = chunk[begin:end]
            if not _letters(part):
                # A dash or a note between words belongs to the word before it.
                held, before = (f"{held} {part}", before) if held else ("", before + part)
                continue
            if held:
                yield _split_punctuation(held)
            held, before = before + part, ""
    if held:
        yield _split_punctuation(held)


def _cuts(chunk: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each word in text without white space."""
    begin = 0
    lettered = alone = False
    for index, char in enumerate(chunk):
        if is_mark(char) or not (char.isalnum() or stands_alone(char)):
            continue
        if lettered and (alone or stands_alone(char)):
            # Opening brackets and quotation marks stay behind here: in Chinese they are
            # rare, and no space marks them.
            yield begin, index
            begin = index
        lettered, alone = True, stands_alone(char)
    yield begin, len(chunk)


def _split_punctuation(unit: str) -> tuple[str, str]:
    end = len(unit)
    while not (unit[end - 1].isalnum() or is_mark(unit[end - 1])):
        end -= 1
    return unit[:end], unit[end:]


def _letter_times(piece: TimedText) -> Iterator[tuple[float, float]]:
    letters = _letters(piece.text)
    ends = list(accumulate((max(speaking_ms(letter), 1) for letter in letters), initial=0))
    scale = (piece.end_ms - piece.begin_ms) / (ends[-1] or 1)
    for begin, end in pairwise(ends):
        yield piece.begin_ms + begin * scale, piece.begin_ms + end * scale


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())
