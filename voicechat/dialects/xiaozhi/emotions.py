"""The emotion that a device shows: an emoji, or a mark such as ``[happy]``, that the
model writes.

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
"""The emoji of each emotion; the first one is sent to the device with the emotion."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "neutral": ("平静", "中性"),
    "happy": ("开心", "高兴", "快乐", "微笑", "smile"),
    "laughing": ("大笑", "laugh"),
    "funny": ("搞笑", "好笑"),
    "sad": ("伤心", "难过", "悲伤"),
    "angry": ("生气", "愤怒"),
    "crying": ("哭泣", "大哭", "cry"),
    "loving": ("喜爱", "爱心", "love"),
    "embarrassed": ("尴尬", "害羞"),
    "surprised": ("惊讶", "惊喜"),
    "shocked": ("震惊",),
    "thinking": ("思考", "think"),
    "winking": ("眨眼", "wink"),
    "cool": ("酷",),
    "relaxed": ("放松", "轻松"),
    "delicious": ("美味", "好吃"),
    "kissy": ("亲亲", "飞吻", "kiss"),
    "confident": ("自信",),
    "sleepy": ("困", "困倦"),
    "silly": ("调皮", "搞怪"),
    "confused": ("困惑", "疑惑"),
}
"""Further words that a mark may use for each emotion, chosen by hand: models have no
fixed vocabulary.
"""

_FACES = "".join(several[0] for several in EMOTIONS.values())
_INSTRUCTIONS: Mapping[str, str] = {
    "zh": f"每次回答都以一个表情符号开头，表示你的心情，只能从这些里面选：{_FACES}",
    "en": f"Begin each answer with one emoji that shows your mood, one of: {_FACES}",
}
_SIGN = re.compile(
    r"[\[【]\s*(?:\w{1,16}\s*[:：=]\s*)?([^\[\]【】:：=]{1,32}?)\s*[\]】]"
    r"|<(?:emotion|mood|表情|情绪|心情)>\s*([^<>]{1,32}?)\s*</"
    r"|<([^<>/\s]{1,32})\s*/?>"
    r"|(.)",
    re.DOTALL,
)
_UNFINISHED = re.compile(r"(?:[\[【][^\[\]【】\n]{0,60}|<[^/>\n]{0,40}(?:>[^<\n]{0,40}<?)?)\Z")
"""The end of a text that may be the beginning of a mark."""


def instructions(language: str) -> str:
    """Return the instructions that make a model write emotions; ``language`` is a BCP
    47 tag, and empty where the user may speak any language.
    """
    return _INSTRUCTIONS["zh" if language.lower().partition("-")[0] == "zh" else "en"]


class EmotionSigns:
    """Which emotion each emoji and each word of a mark stands for."""

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        """``more``: further emoji and words, or other meanings for known ones, each
        with its emotion.
        """
        emoji = {sign: name for name, several in EMOTIONS.items() for sign in several}
        words = {word: name for name, several in WORDS.items() for word in (name, *several)}
        self._emotions = {**emoji, **words, **{key.lower(): to for key, to in (more or {}).items()}}

    @property
    def words(self) -> frozenset[str]:
        """All signs, in lower case."""
        return frozenset(self._emotions)

    def last_in(self, text: str) -> str | None:
        """Return the emotion of the last sign in ``text``, if there is one."""
        last = None
        for sign in _SIGN.finditer(text):
            found = self._emotions.get((sign[1] or sign[2] or sign[3] or sign[4]).lower())
            if found is not None and (sign[4] is None or not sign[4].isalnum()):
                last = found
        return last


class EmotionFinder:
    """Finds emotions in the text of a reply, which comes in pieces."""

    def __init__(self, signs: EmotionSigns) -> None:
        self._signs = signs
        self.begin()

    def begin(self) -> None:
        """Start over for a new reply."""
        self._last = self._rest = ""

    def find(self, text: str) -> tuple[str, str] | None:
        """Return the last emotion in a piece of text, with its emoji; None unless it
        differs from the previous emotion.
        """
        text = self._rest + text
        unfinished = _UNFINISHED.search(text)
        self._rest = "" if unfinished is None else unfinished[0]
        emotion = self._signs.last_in(text)
        if emotion in (None, self._last):
            return None
        self._last = emotion
        return emotion, EMOTIONS.get(emotion, "")[:1]
