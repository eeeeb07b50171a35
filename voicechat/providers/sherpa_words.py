"""What sherpa-onnx recognised, as transcripts: the times of its tokens become the times of words."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from voicechat.session.vocabulary import Transcript, Word
from voicechat.text.characters import OPENERS
from voicechat.text.words import word_spans

TOKEN_MS = 240
"""sherpa-onnx tells where a token begins, not where it ends: it lasts to the next one, and no longer than this."""
MAX_SKIP_CHARACTERS = 8
"""So far ahead in the text a token is looked for; further on stands another one that is written the same."""
_NOT_IN_THE_TEXT = " ▁"


@dataclass(frozen=True, slots=True)
class Recognised:
    """One result of sherpa-onnx. Times are seconds; ``start_s`` is added to all of ``times_s``."""

    text: str
    tokens: Sequence[str] = ()
    times_s: Sequence[float] = ()
    start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Token:
    at: int
    """Where it stands in the text."""
    begin_ms: int
    end_ms: int


def transcript_of(result: Recognised, *, from_ms: int, heard_ms: int, final: bool) -> Transcript | None:
    """Make a transcript of what was recognised between ``from_ms`` and ``heard_ms`` of the stream; None of nothing.

    Models that tell no times of tokens give a transcript without words that lasts from ``from_ms`` to ``heard_ms``.
    """
    text = result.text.strip()
    if not text:
        return None
    words = tuple(_words(text, _tokens(text, result, from_ms, heard_ms), final))
    begin_ms = words[0].begin_ms if words else from_ms
    end_ms = words[-1].end_ms if words else heard_ms
    return Transcript(text, begin_ms, end_ms if final else None, words)


def _tokens(text: str, result: Recognised, from_ms: int, heard_ms: int) -> list[_Token]:
    """Find the tokens in the text; sentencepiece's ``▁`` and paraformer's ``@@`` are not part of it."""
    if len(result.times_s) != len(result.tokens):
        return []
    found: list[_Token] = []
    at = 0
    begins_ms = [min(max(round((result.start_s + time_s) * 1000), from_ms), heard_ms) for time_s in result.times_s]
    for token, begin_ms, next_ms in zip(result.tokens, begins_ms, [*begins_ms[1:], heard_ms], strict=True):
        written = token.strip(_NOT_IN_THE_TEXT).removesuffix("@@")
        place = text.find(written, at, at + len(written) + MAX_SKIP_CHARACTERS) if written else -1
        if place >= 0:
            found.append(_Token(place, begin_ms, max(begin_ms, min(next_ms, begin_ms + TOKEN_MS))))
            at = place + len(written)
    return found


def _words(text: str, tokens: Sequence[_Token], fixed: bool) -> Iterator[Word]:
    if not tokens:
        return
    places = [token.at for token in tokens]
    spans = list(word_spans(text))
    for (begin, end), (next_begin, _) in zip(spans, [*spans[1:], (len(text), 0)], strict=True):
        first = tokens[max(bisect_right(places, begin) - 1, 0)]
        last = tokens[max(bisect_right(places, end - 1) - 1, 0)]
        punctuation = text[end:next_begin].rstrip(" " + "".join(OPENERS)).lstrip()
        yield Word(text[begin:end], first.begin_ms, last.end_ms, punctuation, fixed)
