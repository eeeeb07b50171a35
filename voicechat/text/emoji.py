"""Removes emoji from text. Signs that are read aloud or belong to writing (°, ©, ℃, №)
stay.
"""

import re

from voicechat.text.characters import CLAUSE_MARKS, CLOSERS, SENTENCE_MARKS, is_cjk

_PICTURES = (
    "\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001f0ff\U0001f170-\U0001f19a\U0001f1e6-\U0001f2ff\U0001f300-\U0001fbff"
)
"""Blocks of pictographs: technical, geometric, dingbats, arrows and stars, and the
emoji planes, including flags.
"""
_SELECTED = "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u24c2\u2934\u2935]\ufe0f"
"""Text characters that variation selector 16 turns into emoji."""
_KEYCAP = "[0-9#*]\ufe0f?\u20e3"
_JOINERS = "\u200d\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f"
"""Zero-width joiner, variation selectors, keycap, tags of regional flags. Skin tones
are pictographs themselves.
"""

_EMOJI = re.compile(rf"\s*(?:(?:{_KEYCAP}|{_SELECTED}|[{_PICTURES}])[{_JOINERS}]*\s*)+")


def strip_emoji(line: str) -> str:
    """Remove emoji and the white space around them. Words that they separated stay
    separated.
    """
    return _EMOJI.sub(_gap, line)


def _gap(emoji: re.Match[str]) -> str:
    text = emoji.string
    before = text[max(0, emoji.start() - 1) : emoji.start()]
    after = text[emoji.end() : emoji.end() + 1]
    if emoji[0] != emoji[0].strip():
        return "" if after in CLOSERS or after in SENTENCE_MARKS or after in CLAUSE_MARKS else " "
    return (
        " "
        if after.isalnum() and before.isalnum() and not (is_cjk(before) or is_cjk(after))
        else ""
    )
