"""Replaces tags, entities, formulas and citations in a text by the words that are
spoken for them.
"""

import html
import re
from collections.abc import Set

from voicechat.text.characters import CLAUSE_MARKS, CLOSERS, SENTENCE_MARKS, is_cjk, is_han
from voicechat.text.formulas import KNOWN_COMMANDS, read_formula
from voicechat.text.scanning import Scanner, Until

_INLINE_TAGS = frozenset(
    """a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd mark nobr q rb rp rt ruby
    s samp small span strike strong sub sup tt u var wbr""".split()
)
"""HTML tags that imply no space."""
_TAGS = _INLINE_TAGS | frozenset(
    """address article aside audio blockquote body br button caption center col colgroup dd
    details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 head header
    hgroup hr html iframe img input label legend li link main menu meta nav ol optgroup option
    output p param picture pre progress section select source summary table tbody td textarea
    tfoot th thead time title tr track ul video""".split()
)
_WORDLESS_TAGS = frozenset(
    {"script", "style", "svg", "math", "template", "object", "noscript", "canvas"}
)
"""Tags whose contents are not words."""
_FLAGS = (
    "open|hidden|disabled|checked|selected|required|readonly|multiple|controls"
    "|autoplay|loop|muted|reversed"
)
"""Attributes without a value."""
_NAME = r"[^\W\d][\w.\-]{0,48}(?::[\w.\-]{1,48})?"
_VALUE = r"\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+)"
_ATTRIBUTES = rf"(?:=[^\s<>]+)?(?:\s+(?:[\w:.@\-]+{_VALUE}|(?:{_FLAGS})(?=[\s/>])))*"
_TAG = re.compile(rf"<(/?)({_NAME})({_ATTRIBUTES})\s*(/?)>", re.IGNORECASE)
_TAG_BEGUN = re.compile(
    rf"<(?:/?(?:[^\W\d][\w.\-:]{{0,97}})?|/?{_NAME}{_ATTRIBUTES}"
    r"(?:=[^\s<>]*|\s*(?:[\w:.@\-]{0,48}(?:\s*=\s*(?:\"[^\"<>]*|'[^'<>]*|[^\s\"'<>]*))?)?\s*/?)|!-{0,2})\Z",
    re.IGNORECASE,
)
_COMMENT_END = re.compile(r"-->")
_DECLARATION = re.compile(r"<(?:!(?:DOCTYPE|\[CDATA\[)|\?xml)[^<>]{0,256}>", re.IGNORECASE)
_DECLARATION_BEGUN = re.compile(
    r"<(?:!(?:DOCTYPE|\[CDATA\[|[A-Z[]{0,7}\Z)|\?(?:xml|x?m?\Z))[^<>]{0,256}\Z", re.IGNORECASE
)

_ENTITY = re.compile(r"&(?:amp;)*(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ENTITY_BEGUN = re.compile(r"&(?:amp;){0,8}#?[A-Za-z0-9]{0,32}\Z")
_MOST_ESCAPES = 4
"""How many times an entity may have been escaped."""

_FORMULA_CHARACTERS = 256
_FORMULA = re.compile(r"\$(?=[^\s$])([^$\n]*[^\s$\\])\$")
_DISPLAY_END = {"$$": re.compile(r"\$\$"), r"\[": re.compile(r"\\\]"), r"\(": re.compile(r"\\\)")}
_ESCAPED_BRACKETS = (r"\[", r"\(")
"""These open a formula in LaTeX, and are escaped brackets in Markdown: the content
decides.
"""
_PARAGRAPH = re.compile(r"\n\s*\n|```")
"""A formula never continues past these."""
_FORMULA_ENVIRONMENT = re.compile(
    r"\\begin\{((?:equation|align(?:ed|at)?|gather(?:ed)?|multline|eqnarray|math|displaymath|split|cases|array|[bpvBV]?matrix)\*?)\}"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{\w{1,16}\*?\}(?:\{[^{}\n]{0,16}\})?")
_SIGNS_OF_A_FORMULA = re.compile(r"[\\^_=+<>]|\d\s*[-*/]\s*\d|\A\s*[A-Za-z]\b")
_PART = re.compile(r"\\[A-Za-z]+|\{[^{}]*\}?")
_PROSE = re.compile(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}|[A-Za-z\d][.!?;]\s|[\u2e80-\U0003fffd]")
"""Text that a formula never contains outside of its groups: two words, the end of a
sentence, Chinese.
"""
_AMOUNT = re.compile(r"\$[\d.,]+(?!\s*(?:[-+*/=^_<>\\$\d.,]|\Z)|[A-Za-z(])")
"""A dollar sign before a number is money, unless a formula continues after it."""
_COMMAND = re.compile(
    r"\\([A-Za-z]+)(?:\[[^\[\]\n]{0,16}\])?(?:\{(?:[^{}\n]|\{[^{}\n]{0,64}\}){0,96}\}){0,2}"
    r"(?:[_^](?:\{[^{}\n]{0,64}\}|\w))*"
)
_NAME_CHARACTERS = 24
_COMMANDS = KNOWN_COMMANDS | {"begin", "end"}
_COMMAND_BEGUN = re.compile(r"\\([A-Za-z]*)[^\s\\$]{0,256}\Z")

_NUMBERS = r"\^?\d{1,3}(?:\s?[,;–\-]\s?\^?\d{1,3}){0,15}"
_SOURCES = "citation|cite|ref|reference|source|web|doc|document|search|result|来源|参考|引用|资料"
_CITED_LINK = re.compile(rf"\[\[?{_NUMBERS}\]?\]\([^()\s]{{1,400}}\)")
_CITATION = re.compile(
    rf"\[{_NUMBERS}\]|\[(?:{_SOURCES})s?(?=[\W_\d])[^\[\]\n]{{0,80}}\]|\[\^[^\[\]\s]{{1,32}}\]:?"
    rf"|【(?:[\d:]+(?:†[^【】\n]{{0,120}})?|(?:{_SOURCES})[^【】\n]{{0,80}})】"
    r"|:contentReference\[[^\[\]\n]{0,64}\](?:\{[^{}\n]{0,64}\})?|\ue200[^\ue200\ue201\n]{0,400}\ue201",
    re.IGNORECASE,
)
_CITATION_BEGUN = re.compile(
    rf"(?:\[\[?(?:{_NUMBERS})?[\s,;–\-^]{{0,3}}(?:\]{{1,2}}(?:\([^()\s]{{0,400}})?)?|\[[^\[\]\n]{{0,100}}|【[^【】\n]{{0,130}}"
    r"|:(?:[a-zA-Z]{0,15}|contentReference(?:\[[^\[\]\n]{0,64}(?:\](?:\{[^{}\n]{0,64})?)?)?)|\ue200[^\ue200\ue201\n]{0,400})\Z"
)
_CONTENT_REFERENCE = ":contentReference"
_MARK = re.compile(
    r"[\[【]\s*(?:(?:emotion|mood|表情|情绪|心情)\s*[:：=]\s*)?([^\[\]【】:：=]{1,32}?)\s*[\]】]"
)
"""A mark for the client, such as ``[happy]`` or ``【情绪：开心】``. Group 1 is the
word.
"""
_MARK_TAGS = frozenset({"emotion", "mood", "表情", "情绪", "心情"})
"""Tags around such a word. Their contents are not spoken."""
_AFTER_CITATION = SENTENCE_MARKS | CLAUSE_MARKS | CLOSERS | {"\n", "[", "【", ""}


class SpeechMarkup(Scanner):
    """Replaces the markup of streamed text by its words.

    Tags, HTML's and anything of their form, are removed; entities become their
    characters; simple formulas are read in the language of the text before them, and
    others removed; citation marks are removed, and marks for the client. In code only
    tags and entities count.
    """

    triggers = re.compile(r"[<&$\\\[【:\ue200]")

    def __init__(self, marks: Set[str] = frozenset()) -> None:
        """``marks``: words, in small letters, that are marks for the client where they
        stand alone in square brackets.
        """
        super().__init__()
        self._marks = marks
        self._chinese: bool | None = None
        """Whether the last letters were Chinese; None before the first letter."""

    def decide(self, text: str, *, final: bool) -> tuple[int, str] | None:
        """Decide which construct ``text`` begins with, as `Scanner.decide` says."""
        char = text[0]
        decided: tuple[int, str] | None = (1, char)
        if char == "&":
            decided = _decide_entity(text)
        elif char == "<":
            decided = self._decide_tag(text, final=final) if not self.code.in_block else decided
        elif self.code.in_code:
            pass
        elif char == "$":
            decided = self._decide_dollar(text, final=final)
        elif char == "\\":
            decided = self._decide_command(text, final=final)
        else:
            decided = self._decide_citation(text, final=final)
        return (1, char) if decided is None and final else decided

    def plain(self, text: str) -> None:
        """Note the language of the plain text."""
        super().plain(text)
        for char in reversed(text[-64:]):
            if char.isalpha():
                self._chinese = is_han(char)
                break

    # --- tags -------------------------------------------------------------------------

    def _decide_tag(self, text: str, *, final: bool) -> tuple[int, str] | None:
        if text.startswith("<!--"):
            self.skip(Until(_COMMENT_END))
            return 4, ""
        if declaration := _DECLARATION.match(text):
            return declaration.end(), ""
        tag = _TAG.match(text)
        if tag is None:
            return None if _TAG_BEGUN.match(text) or _DECLARATION_BEGUN.match(text) else (1, "<")
        if tag.end() == len(text) and not final:
            return None
        follows = text[tag.end() : tag.end() + 1]
        name, opens = tag[2].lower(), not tag[1] and not tag[4]
        if opens and (name in _WORDLESS_TAGS or (self._marks and name in _MARK_TAGS)):
            self.skip(Until(re.compile(rf"</{re.escape(name)}\s*>", re.IGNORECASE)))
            return tag.end(), ""
        if name in _INLINE_TAGS:
            return tag.end(), ""
        if name not in _TAGS and opens and not tag[3] and self._is_type(follows):
            return 1, "<"
        return tag.end(), self._gap(follows)

    def _is_type(self, follows: str) -> bool:
        """Return whether an unknown tag is a type parameter, as in ``List<String>
        names``.
        """
        before = self.previous
        return before.isascii() and (before.isalnum() or before == "_") and not follows.isalnum()

    def _gap(self, follows: str) -> str:
        """Return the space that keeps the words beside a removed tag apart."""
        ended = not self.previous or self.previous.isspace()
        return (
            "" if ended or not follows or follows.isspace() or follows in _AFTER_CITATION else " "
        )

    # --- formulas ---------------------------------------------------------------------

    def _decide_dollar(self, text: str, *, final: bool) -> tuple[int, str] | None:
        if text == "$":
            return None
        if text[1] == "$":
            return self._decide_display(text, "$$", final=final)
        if self.previous.isascii() and self.previous.isalnum():
            return 1, "$"
        formula = _FORMULA.match(text)
        if formula is None:
            content = text[1:]
            impossible = (
                content[0].isspace() or "\n" in content or "$" in content or _is_prose(content)
            )
            return (
                (1, "$")
                if impossible or _AMOUNT.match(text) or len(text) > _FORMULA_CHARACTERS
                else None
            )
        if formula.end() == len(text) and not final:
            return None
        follows = text[formula.end() : formula.end() + 1]
        if follows.isdigit() or (follows.isascii() and follows.isupper()) or _is_prose(formula[1]):
            return 1, "$"
        return formula.end(), self._say(formula[1], follows)

    def _decide_display(self, text: str, opener: str, *, final: bool) -> tuple[int, str] | None:
        closer = _DISPLAY_END.get(opener) or re.compile(
            re.escape(opener.replace("begin", "end", 1))
        )
        end = closer.search(text, len(opener))
        paragraph = _PARAGRAPH.search(text)
        if end is None or (paragraph is not None and paragraph.start() < end.start()):
            if paragraph is None and not final:
                return None
            return len(opener), opener if opener in _ESCAPED_BRACKETS else ""
        if end.end() == len(text) and not final:
            return None
        content = text[len(opener) : end.start()]
        if opener in _ESCAPED_BRACKETS and not _SIGNS_OF_A_FORMULA.search(content):
            return len(opener), opener
        return end.end(), self._say(content, text[end.end() : end.end() + 1])

    def _decide_command(self, text: str, *, final: bool) -> tuple[int, str] | None:
        if len(text) == 1:
            return None
        if text[1] in "[(":
            return self._decide_display(text, text[:2], final=final)
        if text[1] in "$%":
            return 2, text[1]
        if environment := _FORMULA_ENVIRONMENT.match(text):
            return self._decide_display(text, environment[0], final=final)
        environment = _ENVIRONMENT.match(text)
        if environment is not None and (final or environment.end() < len(text)):
            return environment.end(), self._gap(text[environment.end() : environment.end() + 1])
        begun = _COMMAND_BEGUN.match(text)
        if begun is not None and not final:
            name, arguments = begun[1], begun[0][1 + len(begun[1]) :]
            possible = (
                name in _COMMANDS or arguments[0] in "{["
                if arguments
                else len(name) <= _NAME_CHARACTERS
            )
            return None if possible else (1, "\\")
        command = _COMMAND.match(text)
        if command is None or (command[1] not in KNOWN_COMMANDS and "{" not in command[0]):
            return 1, "\\"
        return command.end(), self._say(command[0], text[command.end() : command.end() + 1])

    def _say(self, latex: str, follows: str) -> str:
        """Return the words of a formula, separated from the words beside it."""
        chinese = is_cjk(follows) if self._chinese is None else self._chinese
        words = read_formula(latex, chinese=chinese)
        if not words:
            return self._gap(follows)
        left = (
            "" if not self.previous or not self.previous.isalnum() or is_cjk(self.previous) else " "
        )
        right = " " if follows.isalnum() and not is_cjk(follows) else ""
        return left + words + right

    # --- citations --------------------------------------------------------------------

    def _decide_citation(self, text: str, *, final: bool) -> tuple[int, str] | None:
        if text[0] == ":" and text[: len(_CONTENT_REFERENCE)] != _CONTENT_REFERENCE[: len(text)]:
            return 1, ":"
        if link := _CITED_LINK.match(text):
            return link.end(), ""
        if _CITATION_BEGUN.match(text) and not final:
            return None
        mark = _MARK.match(text)
        if mark is not None and mark[1].lower() in self._marks:
            return mark.end(), self._gap(text[mark.end() : mark.end() + 1])
        citation = _CITATION.match(text)
        if citation is None:
            return 1, text[0]
        follows = text[citation.end() : citation.end() + 1]
        return (citation.end(), "") if self._cites(citation[0], follows) else (1, text[0])

    def _cites(self, mark: str, follows: str) -> bool:
        """Return whether a mark is a citation, not an index, a list of numbers or a
        link's text.
        """
        if mark[0] != "[" or mark[1] == "^":
            return True
        if follows and follows in "(:":
            return False
        if mark[1].isdigit():
            if re.search(r"\b0", mark) or not self.previous:
                return False
            return not self.previous.isspace() or follows in _AFTER_CITATION
        return bool(re.search(r"[\d:：_]|needed", mark))


def _decide_entity(text: str) -> tuple[int, str] | None:
    if _ENTITY_BEGUN.match(text):
        return None
    entity = _ENTITY.match(text)
    if entity is None:
        return 1, "&"
    character, before = html.unescape(entity[0]), entity[0]
    for _ in range(_MOST_ESCAPES):
        if character == before:
            break
        character, before = html.unescape(character), character
    return (1, "&") if character == entity[0] else (entity.end(), character.replace("\xa0", " "))


def _is_prose(content: str) -> bool:
    return _PROSE.search(_PART.sub("#", content)) is not None
