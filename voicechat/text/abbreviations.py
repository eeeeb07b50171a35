"""Abbreviations whose full stop does not end a sentence. English only: other full stops
are unambiguous.
"""

import re
from enum import Enum

from voicechat.text.characters import HAN_RANGES

LONGEST = 12
"""The longest abbreviation, in characters: this many characters before a dot are enough
to judge it.
"""

_NEVER_END = frozenset(
    {
        "mr",
        "mrs",
        "ms",
        "mx",
        "dr",
        "prof",
        "st",
        "mt",
        "rev",
        "hon",
        "sen",
        "rep",
        "gov",
        "pres",
        "gen",
        "col",
        "maj",
    }
    | {
        "capt",
        "cpt",
        "lt",
        "sgt",
        "cmdr",
        "messrs",
        "vs",
        "cf",
        "viz",
        "approx",
        "ca",
        "resp",
        "fig",
        "figs",
        "eq",
    }
    | {"eqs", "vol", "eds", "al"}
)
"""Titles and introductions: a name, a number or the rest of the sentence always
follows.
"""

_MAY_END = frozenset(
    {
        "etc",
        "inc",
        "ltd",
        "co",
        "corp",
        "bros",
        "jr",
        "sr",
        "esq",
        "ave",
        "blvd",
        "rd",
        "dept",
        "est",
        "ext",
        "ed",
    }
    | {
        "a.m",
        "p.m",
        "b.c",
        "a.d",
        "ph.d",
        "m.d",
        "d.c",
        "no",
        "nos",
        "pp",
        "ch",
        "sec",
        "min",
        "max",
    }
    | {"jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept", "sep", "oct", "nov", "dec"}
    | {"mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri", "sat", "sun"}
)
"""Abbreviations within a sentence or at its end: the next character decides."""

_WORD = re.compile(rf"(?:(?![{HAN_RANGES}\u3041-\u30ff])[\w.])*\Z")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
_LIST_NUMBER = re.compile(r"[\s>#*_+-]*\d{1,3}")


class Dot(Enum):
    """What a full stop followed by white space means."""

    ENDS = "ends"
    """It ends the sentence."""
    GOES_ON = "goes on"
    """It belongs to the word."""
    DEPENDS = "depends"
    """It ends the sentence unless a small letter or a digit follows."""


def judge_dot(before: str, line: str | None) -> Dot:
    """Judge the full stop after ``before``, the last ``LONGEST`` characters or more of
    the text.

    ``line`` is the text of the line before the dot, or None if it is too long to be a
    list number.
    """
    if line is not None and _LIST_NUMBER.fullmatch(line):
        return Dot.GOES_ON
    match = _WORD.search(before)
    word = match[0].lower() if match else ""
    if word in _MAY_END:
        return Dot.DEPENDS
    if word in _NEVER_END or _INITIALS.fullmatch(word):
        return Dot.GOES_ON
    return Dot.ENDS
