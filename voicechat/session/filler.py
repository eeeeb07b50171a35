"""What is spoken while a tool takes long."""

from dataclasses import dataclass

from voicechat.text.words import Script, dominant_script

LINE_END = "\n"
"""Appended to the text before a tool call, so that it is spoken while the tool runs."""
AFTER_MS = 1_000
"""How long a tool may run before a filler is spoken, by default."""


@dataclass(frozen=True, slots=True)
class Filler:
    """A few words, by language. Empty ones are not spoken."""

    en: str = ""
    zh: str = ""

    def text_for(self, user_text: str) -> str:
        """Return the text in the language of ``user_text``, or in the other language if
        that text is empty.
        """
        chinese = dominant_script(user_text) is Script.HAN
        return (self.zh or self.en) if chinese else (self.en or self.zh)
