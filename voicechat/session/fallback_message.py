"""What is spoken when the chat model has failed and a listener would otherwise hear
only silence.
"""

from dataclasses import dataclass

from voicechat.text.words import Script, dominant_script


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackMessage:
    """A short sentence in the language of the user's words; an empty one is not
    spoken.
    """

    zh: str = "抱歉，我现在回答不了，请稍后再试。"
    en: str = "Sorry, I can't answer right now. Please try again in a moment."

    def to(self, text: str) -> str:
        """Return the sentence for a user who said ``text``."""
        return self.zh if dominant_script(text) is Script.HAN else self.en

    def in_language(self, language: str) -> str:
        """Return the sentence for a language tag, such as ``zh-CN``; empty: English."""
        return self.zh if language.partition("-")[0].lower() == "zh" else self.en
