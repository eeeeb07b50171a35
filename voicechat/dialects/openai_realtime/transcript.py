"""The transcript of a turn in pieces that are only ever appended.

Recognisers correct themselves; a client of this protocol only appends. A word is sent
once two results in a row agree on it and another word follows it; the rest of a
sentence is sent once the sentence is final. When a final sentence contradicts what was
sent, only the whole transcript at the end is right.
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
    """All text that was sent."""
    _finished: str = ""
    """The final sentences."""
    _before: str = ""
    """The newest result of the sentence that is not final."""
    _held: str = ""

    def add(self, transcript: Transcript) -> str:
        """Take a result; return the text that can be sent now, empty if none can."""
        if transcript.final:
            self._finished = join([self._finished, transcript.text])
            self._before = ""
            return self._extend(self._finished)
        agreed = _agreed(self._before, transcript.text)
        self._before = transcript.text
        return self._extend(join([self._finished, agreed])) if agreed else ""

    def hold(self, transcript: Transcript) -> None:
        """Take a result whose text can be sent only later, by ``release``."""
        self._held += self.add(transcript)

    def release(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return held

    def finish(self, transcript: str) -> str:
        """Take the whole transcript of the turn; return the part that was not sent yet,
        empty if the transcript contradicts what was sent.
        """
        return self._extend(transcript)

    def _extend(self, text: str) -> str:
        if not text.startswith(self.told):
            return ""
        more = text[len(self.told) :]
        self.told = text
        return more


def _agreed(before: str, now: str) -> str:
    """Return the whole words with which both results begin, without the newest word."""
    first, second = _WORD.findall(before), _WORD.findall(now)
    same = 0
    while same < min(len(first), len(second)) - 1 and first[same] == second[same]:
        same += 1
    return "".join(second[:same]).rstrip()
