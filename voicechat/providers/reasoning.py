"""Removes the thoughts at the beginning of a reply's text, in the forms of all known
templates.
"""

from voicechat.text.hidden import HiddenText


class ThoughtFilter:
    """Filters the streamed text of one reply. Only text before the answer counts as a
    thought.

    Later text may be about these tags, and is unchanged. `HiddenTextFilter` removes
    more, for replies that are spoken.
    """

    def __init__(self, *, inside: bool = False) -> None:
        """``inside``: the reply begins within a thought whose opening tag is not part
        of the text.
        """
        self._hidden = HiddenText(inside=inside, only_thoughts=True)
        self._lead = ""
        """White space before the first word."""
        self._thought = inside
        self._answering = False

    def push_text(self, delta: str) -> str:
        """Add text; returns the part that belongs to the answer."""
        if self._answering:
            return delta
        answer = ""
        for run in self._hidden.scan(delta):
            if self._answering:
                answer += run.source
            elif run.source != run.result:
                self._thought, self._lead = True, ""
            else:
                text = self._lead + run.result
                begun = text.lstrip()
                self._answering, self._lead = bool(begun), "" if begun else text
                if begun:
                    answer = begun if self._thought else text
        return answer + self._hidden.give_up() if self._answering else answer

    def finish_text(self) -> str:
        """End the reply; returns text that was undecided. An unfinished thought is not
        an answer.
        """
        if self._answering:
            return ""
        rest = self._lead + "".join(run.result for run in self._hidden.scan_rest())
        return rest.lstrip() if self._thought else rest
