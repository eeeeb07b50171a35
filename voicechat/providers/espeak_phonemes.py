"""Phonemes by espeak-ng, in the form that Piper's voices are trained on.

Piper (phonemize.cpp of piper-phonemize) uses espeak's IPA clause by clause and keeps
the punctuation between; letters and their diacritics are separate characters (NFD), and
espeak's language marks, "(en)", are removed.
"""

import re
import unicodedata

from voicechat.providers.espeak_library import EspeakLibrary

_CLAUSE = re.compile(r"(.+?)(?:([.!?,;:。！？，；：、…]+)(?=\s|$|[㐀-鿿])|$)\s*", re.DOTALL)
"""Words, and the punctuation after them unless it is within a number or a name."""
_REMARK = re.compile(r"\([^)]*\)")
_PLAIN = str.maketrans("。！？，；：、…", ".!?,;:,.")
_SENTENCE_END = frozenset(".!?")


def sentences_of_phonemes(library: EspeakLibrary, text: str, voice: str) -> list[str]:
    """Return each sentence as phonemes with its punctuation; empty for a text without
    words.

    Blocks for about 1 ms per sentence. Raises `ProviderError` for a voice that
    espeak-ng does not have.
    """
    sentences: list[str] = []
    sentence = ""
    for clause, marks in _CLAUSE.findall(text):
        said = _REMARK.sub("", library.phonemes(clause, voice)).strip()
        if not said:
            continue
        mark = marks[:1].translate(_PLAIN)
        sentence += unicodedata.normalize("NFD", said) + mark
        if mark in _SENTENCE_END:
            sentences.append(sentence)
            sentence = ""
        else:
            sentence += " "
    return [*sentences, sentence.rstrip()] if sentence else sentences
