"""The emotion that a device shows: an emoji that the model writes.

The names are the firmware's: each is a face that its display can show.
"""

import re
from collections.abc import Mapping

EMOTIONS: Mapping[str, str] = {
    "neutral": "😶😐😑",
    "happy": "🙂😊😀😃😄😁☺",
    "laughing": "😆🤣",
    "funny": "😂",
    "sad": "😔🙁☹😞😟😢",
    "angry": "😠😡😤",
    "crying": "😭",
    "loving": "😍🥰❤",
    "embarrassed": "😳😅",
    "surprised": "😲😮😯",
    "shocked": "😱😨",
    "thinking": "🤔🧐",
    "winking": "😉",
    "cool": "😎",
    "relaxed": "😌",
    "delicious": "🤤😋",
    "kissy": "😘😗😚",
    "confident": "😏",
    "sleepy": "😴😪🥱",
    "silly": "😜😝😛🤪",
    "confused": "🙄😕😖",
}
"""The emoji of each emotion; the first one goes with it to the device."""

_OF_EMOJI = {emoji: emotion for emotion, several in EMOTIONS.items() for emoji in several}
_EMOJI = re.compile(f"[{''.join(_OF_EMOJI)}]")

_FACES = "".join(several[0] for several in EMOTIONS.values())
_INSTRUCTIONS: Mapping[str, str] = {
    "zh": f"每次回答都以一个表情符号开头，表示你的心情，只能从这些里面选：{_FACES}",
    "en": f"Begin each answer with one emoji that shows your mood, one of: {_FACES}",
}


def instructions(language: str) -> str:
    """Return what a model is told so that it writes emotions; ``language`` is a BCP 47
    tag, and empty where the user may speak any.
    """
    return _INSTRUCTIONS["zh" if language.lower().partition("-")[0] == "zh" else "en"]


class EmotionFinder:
    """Finds emotions in the text of a reply, which comes in pieces."""

    def __init__(self) -> None:
        self._last = ""

    def begin(self) -> None:
        """A reply begins."""
        self._last = ""

    def find(self, text: str) -> tuple[str, str] | None:
        """Return the last emotion in a piece of text, with its emoji, when it differs
        from the one before.
        """
        found = _EMOJI.findall(text)
        if not found:
            return None
        emotion = _OF_EMOJI[found[-1]]
        if emotion == self._last:
            return None
        self._last = emotion
        return emotion, EMOTIONS[emotion][0]
