"""What was understood of a turn, told in pieces that are only ever added to.

Recognisers correct themselves; a client of this protocol only appends. A word is told
once two results in a row have agreed on it and another word follows it, and what is
left once the sentence is final. Where a final sentence contradicts what was told, the
whole transcript at the end says what holds.
"""

import re
from dataclasses import dataclass

from voicechat.session.types import Transcript
from voicechat.text.words import join

_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+|\s+")


@dataclass(slots=True)
class GrowingTranscript:
    """The transcript of one turn."""

    told: str = ""
    """All that was told."""
    _finished: str = ""
    """The final sentences."""
    _before: str = ""
    """The last result of the sentence that is not final."""
    _held: str = ""

    def add(self, transcript: Transcript) -> str:
        """Take a result; return what can be told now, empty if nothing can."""
        if transcript.final:
            self._finished = join([self._finished, transcript.text])
            self._before = ""
            return self._extend(self._finished)
        agreed = _agreed(self._before, transcript.text)
        self._before = transcript.text
        return self._extend(join([self._finished, agreed])) if agreed else ""

    def hold(self, transcript: Transcript) -> None:
        """Take a result that can be told only later, with ``release``."""
        self._held += self.add(transcript)

    def release(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return held

    def finish(self, transcript: str) -> str:
        """The turn said ``transcript``; return what was not told of it, empty where
        that contradicts what was.
        """
        return self._extend(transcript)

    def _extend(self, text: str) -> str:
        if not text.startswith(self.told):
            return ""
        more = text[len(self.told) :]
        self.told = text
        return more


def _agreed(before: str, now: str) -> str:
    """What two results have in common from the beginning on, in whole words, without
    the newest word.
    """
    first, second = _WORD.findall(before), _WORD.findall(now)
    same = 0
    while same < min(len(first), len(second)) - 1 and first[same] == second[same]:
        same += 1
    return "".join(second[:same]).rstrip()
