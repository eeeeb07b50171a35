"""Removal of the thoughts that a reply's text begins with, however a template writes
them.
"""

from voicechat.text.hidden import HiddenText


class ThoughtFilter:
    """One reply's text, in any cut. Only what stands before the answer is taken for a
    thought.

    What follows may be text about these tags, and is passed on as it stands.
    `HiddenTextFilter` takes out more, for replies that are spoken.
    """

    def __init__(self, *, inside: bool = False) -> None:
        """``inside``: the reply begins within a thought whose opening tag is not part
        of it.
        """
        self._hidden = HiddenText(inside=inside, only_thoughts=True)
        self._lead = ""
        """White space before the first word."""
        self._thought = inside
        self._answering = False

    def push_text(self, delta: str) -> str:
        """Take the next piece of the reply; give what of it is the answer."""
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
        """End the reply; give what was still undecided. An unfinished thought is no
        answer.
        """
        if self._answering:
            return ""
        rest = self._lead + "".join(run.result for run in self._hidden.scan_rest())
        return rest.lstrip() if self._thought else rest
