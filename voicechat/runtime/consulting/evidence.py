"""Which material a reply has used although it cites none: small models often forget the
marks.
"""

import re
from collections.abc import Iterable

from voicechat.text.characters import is_han

LEAST_TERMS = 2
"""A reply with fewer terms of its own says too little to tell."""
LEAST_SHARE = 0.6
"""The share of the reply's terms that the material must have."""
_WORDS = re.compile(r"[^\W_]+")
_WORD_CHARACTERS = 4
"""Shorter words of an alphabet, mostly articles and prepositions, tell nothing."""


def used_by(reply: str, question: str, pieces: Iterable[tuple[int, str]]) -> list[int]:
    """Return the numbers of the pieces from which the reply took what it says.

    These are pieces that have most of the words with which the reply goes beyond the
    question; of several only those that have the most.
    """
    own = _terms(reply) - _terms(question)
    if len(own) < LEAST_TERMS:
        return []
    shares = {number: len(own & _terms(text)) / len(own) for number, text in pieces}
    best = max(shares.values(), default=0.0)
    return [number for number, share in shares.items() if share == best and best >= LEAST_SHARE]


def _terms(text: str) -> set[str]:
    """Return the words and numbers of a text, and the pairs of neighbouring Chinese
    characters.
    """
    terms: set[str] = set()
    for word in _WORDS.findall(text.casefold()):
        if any(map(is_han, word)):
            terms |= {word[at : at + 2] for at in range(len(word) - 1)}
        elif len(word) >= _WORD_CHARACTERS or word.isdigit():
            terms.add(word)
    return terms
