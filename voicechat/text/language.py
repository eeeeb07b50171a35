"""The language of a text, as far as its script shows it."""

from voicechat.text.characters import is_han, is_latin

LANGUAGES = ("zh", "ja", "ko", "en")
"""What `language_of` can return besides the empty string."""


def language_of(text: str) -> str:
    """Return ``ja`` for a text with kana, ``ko`` with Hangul, ``zh`` with Chinese
    characters, ``en`` with Latin letters only (in whatever language), and "" without
    any of these.

    One Chinese word makes a sentence Chinese, because a Chinese voice can read the
    English words around it, but an English voice cannot read the Chinese word.
    """
    if any("\u3041" <= char <= "\u30ff" and char.isalpha() for char in text):
        return "ja"
    if any("\uac00" <= char <= "\ud7a3" for char in text):
        return "ko"
    if any(map(is_han, text)):
        return "zh"
    return "en" if any(map(is_latin, text)) else ""
