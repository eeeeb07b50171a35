"""Cuts the streamed text of a reply into sentences to be spoken."""

import re
from dataclasses import replace

from voicechat.text.abbreviations import LONGEST, Dot, judge_dot
from voicechat.text.characters import is_wide
from voicechat.text.context import LineContext
from voicechat.text.draft import ALONE_SUBSTANCE, NARROW_WEIGHT, WIDE_WEIGHT, Border, Draft
from voicechat.text.fences import Fence
from voicechat.text.stops import Mark, Stop, StopVerdict, mark_of

LATIN_LIMIT = 160
"""A longer sentence is cut: 160 characters are about 11 s of speech, and a
synthesiser's first audio of more would be late.
"""
PIECE_WEIGHT_LIMIT = LATIN_LIMIT * NARROW_WEIGHT
"""The same in units of speaking time: 60 Han characters, about 12 s."""
FIRST_CLAUSE_SUBSTANCE = 4 * ALONE_SUBSTANCE
"""The first piece of a reply may be a clause of at least four Han characters or three
words. That is about 1 s of speech, in which the rest of the sentence can be generated
and synthesised; after a shorter clause there would be a gap.
"""
HARD_LIMIT_CHARACTERS = 1000
"""The bound of memory: text without a good border (a link's address, a line of code) is
cut at this length.
"""
_LIST_NUMBER_CHARACTERS = 16
_PLAIN = re.compile("[A-Za-z0-9 ]{1,64}|[\u4e00-\u9fff]{1,24}")
"""Words, or common Han characters, which end nothing. Most of a text is processed in
such runs. They are bounded, because near the length limit they are matched repeatedly.
"""


class SentenceSplitter:
    """Splits deltas of text into sentences; the first piece is as short as can be
    spoken.

    The joined pieces equal the joined deltas. The pieces do not depend on how the text
    was split into deltas, unless ``force_cut`` is called. A piece ends after its
    closing quotation marks, and includes the one white space character that showed its
    end.

    The reply's first piece is returned at the first full stop, question mark or comma
    that is unambiguous (``，``), without waiting for the next character; marks that
    belong to it (``！！``) begin the next piece, where they are not spoken.

    The work is linear in the text; memory is bounded by ``HARD_LIMIT_CHARACTERS``.
    """

    __slots__ = ("_context", "_draft", "_fence", "_first", "_pieces", "_stop")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._restart()

    def push_text(self, delta: str) -> list[str]:
        """Add text; returns the pieces that it completed."""
        at = 0
        while at < len(delta):
            plain = _PLAIN.match(delta, at) if self._stop is None else None
            if plain is not None and self._fits(plain[0]):
                self._take_plain(plain[0])
                at = plain.end()
            else:
                self._take(delta[at])
                at += 1
        return self._given()

    def force_cut(self) -> list[str]:
        """Return what can be spoken now, cut at a clause or a word, because the text
        has waited too long.

        Returns nothing if there is only half a word or code.
        """
        draft = self._draft
        if not self._in_code:
            border = self._forced_border()
            if draft.substance(border) > 0:
                self._cut(border)
        return self._given()

    def finish_text(self) -> list[str]:
        """End the text; returns the rest. The splitter can then be used for another
        text.
        """
        if self._draft.length:
            self._cut(self._draft.end)
        pieces = self._given()
        self._restart()
        return pieces

    @property
    def _in_code(self) -> bool:
        return self._fence.inside or self._context.fence_like

    def _restart(self) -> None:
        self._draft = Draft()
        self._context = LineContext()
        self._fence = Fence()
        self._first = True
        self._stop: Stop | None = None

    def _given(self) -> list[str]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _take(self, char: str) -> None:
        self._bound(char)
        if char == "\n":
            self._end_line()
        elif self._stop is None or not self._continue_stop(self._stop, char):
            self._begin_stop(char)

    def _fits(self, plain: str) -> bool:
        """Return whether no cut is needed before ``plain`` or within it."""
        draft = self._draft
        each = NARROW_WEIGHT if plain.isascii() else WIDE_WEIGHT
        return draft.weight(draft.end) + len(plain) * each <= PIECE_WEIGHT_LIMIT

    def _take_plain(self, plain: str) -> None:
        """Append words or Han characters. Same as ``_take`` for each character."""
        draft, code = self._draft, self._in_code
        if not code:
            draft.meet(plain[0])
        if plain.isascii():
            draft.append_words(plain, code=code)
        else:
            draft.append_han(plain, code=code)
        self._context.read_plain(plain)

    def _append(self, char: str) -> None:
        self._draft.append(char, code=self._in_code)
        self._context.read_char(char)

    def _bound(self, char: str) -> None:
        """Cut before ``char`` if the piece would exceed its limit with it."""
        draft = self._draft
        if draft.length >= HARD_LIMIT_CHARACTERS:
            self._cut(draft.end)
        if self._in_code:
            return
        draft.meet(char)
        added = WIDE_WEIGHT if is_wide(char) else NARROW_WEIGHT
        if draft.weight(draft.end) + added <= PIECE_WEIGHT_LIMIT:
            return
        border = draft.clause
        if draft.weight(border) * 2 < PIECE_WEIGHT_LIMIT:
            border = draft.word
        if draft.substance(border) > 0:
            self._cut(border)

    def _end_line(self) -> None:
        """End the sentence at a line feed. Lines of code are kept together up to about
        the length of a sentence.
        """
        was_code = self._fence.inside
        line = self._draft.line(HARD_LIMIT_CHARACTERS)
        if line is not None:
            self._fence.take_line(line)
        self._append("\n")
        if self._fence.inside:
            complete = self._draft.length >= LATIN_LIMIT
        else:
            complete = was_code or self._draft.substance(self._draft.end) > 0
        if complete:
            self._cut(self._draft.end)

    def _begin_stop(self, char: str) -> None:
        """Append ``char``; it may end the piece."""
        draft = self._draft
        previous = draft.previous
        mark = mark_of(char, previous)
        dot = (
            judge_dot(draft.tail(LONGEST), draft.line(_LIST_NUMBER_CHARACTERS))
            if mark is Mark.DOT
            else Dot.ENDS
        )
        self._append(char)
        if (
            mark is None
            or self._in_code
            or self._context.shielded
            or draft.substance(draft.end) == 0
        ):
            return
        self._stop = Stop(mark, draft.end, dot=dot, after_digit=previous.isdigit())
        if mark in (Mark.FULL, Mark.FULL_CLAUSE) and self._first and not self._context.enclosed:
            self._end_stop(self._stop)

    def _continue_stop(self, stop: Stop, char: str) -> bool:
        """Judge the stop by ``char``. Returns True if ``char`` was appended as a part
        of the stop.
        """
        verdict = stop.judge(char, quote_open=self._context.quote_open)
        if verdict is StopVerdict.GOES_ON:
            self._stop = None
            return False
        if verdict is StopVerdict.ENDS and not char.isspace():
            self._end_stop(stop)
            return False
        self._append(char)
        match verdict:
            case StopVerdict.JOINS:
                self._stop = stop.joined(char, self._draft.end)
            case StopVerdict.WAITS:
                self._stop = stop.waited(self._draft.end)
            case StopVerdict.ENDS:
                self._end_stop(replace(stop, border=self._draft.end))
        return True

    def _end_stop(self, stop: Stop) -> None:
        """End the sentence; or end the clause, if it is the reply's first piece and
        long enough.
        """
        self._stop = None
        if stop.mark.ends_sentence or (
            self._first and self._draft.substance(stop.border) >= FIRST_CLAUSE_SUBSTANCE
        ):
            self._cut(stop.border)
        else:
            self._draft.mark_clause(stop.border)

    def _forced_border(self) -> Border:
        draft = self._draft
        if self._stop is not None and self._stop.likely:
            return self._stop.border
        clause = draft.clause
        if draft.substance(clause) >= FIRST_CLAUSE_SUBSTANCE:
            return clause
        whole = draft.ends_at_word() and self._stop is None and not self._context.shielded
        return draft.end if whole else draft.word

    def _cut(self, border: Border) -> None:
        """Emit the text up to ``border`` as a piece."""
        if self._draft.substance(border) > 0:
            self._first = False
        if self._stop is not None and self._stop.border.at <= border.at:
            self._stop = None
        self._context.leave_span()
        self._pieces.append(self._draft.cut(border))
