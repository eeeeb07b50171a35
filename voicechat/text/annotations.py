"""Finds annotations of non-speech sounds, such as ``(coughing)``, in a text."""

import re

from voicechat.text.characters import is_cjk

_ALWAYS = re.compile(
    r"<\|[^|<>]{0,48}\|>|<[ /]?[A-Za-z][\w ]{0,24}>|\+\+\w{1,24}\+\+"
    r"|\[[^\[\]]{0,200}\]|【[^【】]{0,200}】|\{[^{}]{0,200}\}"
    r"|(?<![\w*])\*{1,2}[^*\n]{1,100}\*{1,2}(?![\w*])"
    r"|[♩♪♫♬🎵🎶][^♩♪♫♬🎵🎶]{0,500}(?=[♩♪♫♬🎵🎶])|[♩♪♫♬🎵🎶]"
)
"""Tokens, tags, fillers, square and curly brackets, asterisks, and lyrics between
notes.
"""
_ROUND = re.compile(r"(?<![A-Za-z0-9_])[(（]([^()（）]{0,200})[)）]")
"""Round brackets, which may also contain spoken words."""
_OPENED = re.compile(r"(?<![A-Za-z0-9_])(?:[\[【{(（*♪♫]|<\|)([^\])】}）*♪♫]{0,200})\Z")
"""An unclosed bracket and the rest of the text: the end is still to come, or was cut
off.
"""
_CREDITS = re.compile(
    r"\W*(?:.{0,60}\bamara\.org\b.{0,60}|(?:subtitles|captions) by\b.{0,60}"
    r"|transcription by castingwords\W*|sous-titrage (?:st' ?501|société radio-canada|fr\b).{0,8}"
    r"|untertitel (?:im auftrag des|von stephanie geiges).{0,40}"
    r"|(?:субтитры (?:сделал|создавал|подогнал)|редактор субтитров)\b.{0,60}"
    r"|(?:中文)?字幕(?:志愿者|志願者|提供|由|by).{0,40}|.{0,40}明[镜鏡][与與][点點][点點].{0,20})",
    re.IGNORECASE | re.DOTALL,
)
"""Film credits, which Whisper writes for silence."""
_SHORT_WORDS, _SHORT_HAN = 4, 6
_BLANK = "\0"
_GAP = re.compile(r"([^\0\s]?)\s*\0[\0\s]*([^\0\s]?)")
_SPACE_BEFORE_MARK = re.compile(r"\s+(?=[,.;:!?，。；：！？、])")
_LEFT_IN_FRONT = " \t\n-–—,.;:，。、；："


def find_annotations(text: str, *, complete: bool) -> list[tuple[int, int]]:
    """Return the start and end of each annotation in ``text``, in order.

    ``complete``: no more text follows.

    Round brackets with up to four words, or six Chinese characters, are an annotation;
    with any number if the text contains nothing else. Brackets with digits, as in
    ``(555) 1234``, never are.
    """
    if complete and _CREDITS.fullmatch(text):
        return [(0, len(text))]
    spans = [match.span() for match in _ALWAYS.finditer(text)]
    rest = _blanked(text, spans)
    alone = not has_words(_blanked(rest, [match.span() for match in _ROUND.finditer(rest)]))
    for match in _ROUND.finditer(rest):
        if not any(map(str.isdigit, match[1])) and (alone or _is_short(match[1])):
            spans.append(match.span())
    rest = _blanked(text, spans)
    opened = _OPENED.search(rest)
    if opened is not None and (not complete or _is_short(opened[1])):
        spans.append(opened.span())
    return sorted(spans)


def without(text: str, spans: list[tuple[int, int]]) -> str:
    """Remove ``spans`` of ``text``, and punctuation that only separated them."""
    left = _GAP.sub(_joined, _blanked(text, spans)).lstrip(_LEFT_IN_FRONT).rstrip()
    return _SPACE_BEFORE_MARK.sub("", left)


def has_words(text: str) -> bool:
    """Return whether ``text`` has a letter or a digit; else nothing was said."""
    return any(map(str.isalnum, text))


def _is_short(content: str) -> bool:
    words = content.split()
    if content.isascii():
        return len(words) <= _SHORT_WORDS
    return len("".join(words)) <= _SHORT_HAN or (len(words) > 1 and len(words) <= _SHORT_WORDS)


def _joined(gap: re.Match[str]) -> str:
    """Join the text beside an annotation, with a space where words need one."""
    left, right = gap[1], gap[2]
    return left + right if is_cjk(left or right) or is_cjk(right or left) else f"{left} {right}"


def _blanked(text: str, spans: list[tuple[int, int]]) -> str:
    """Replace each character of ``spans`` by a blank, so that the other characters keep
    their positions.
    """
    for begin, end in spans:
        text = text[:begin] + _BLANK * (end - begin) + text[end:]
    return text
