"""Removes from a reply the text that is not part of the answer: thoughts, calls written
as text, special tokens.

A server leaves these in the text if it has no parser for the model's template. The
names and marks are those of published models' templates.
"""

import re
from collections.abc import Iterable

from voicechat.text.scanning import Run, Scanner, Skip, Until, UntilBalanced

THOUGHTS = frozenset(
    """think thinking thinking_process thought thoughts thought_process reason reasoning
    reasoning_process reflection scratchpad analysis rationale monologue inner_monologue
    internal_monologue inner_thought inner_thoughts chain_of_thought cot
    思考 思考过程 思维 思维链 推理 推理过程""".split()
)
"""Names of tags around a model's thoughts. Any closing tag of them closes any opening
one.
"""
CALLS = frozenset(
    """tool tools toolcall tool_call tool_calls tool_use tool_code tool_request tool_input
    tool_output tool_result tool_results tool_response tool_responses available_tools
    function functions function_call function_calls function_response function_result
    function_results invoke action action_input observation use_mcp_tool""".split()
)
"""Names of tags around a tool call or its answer. Each is closed by its own name."""
_COMMON_WORDS = frozenset("tool tools function functions action action_input observation".split())
"""The names of ``_CALL_TAGS`` that are also common placeholders. They hide only content
that looks like a call.
"""
_CALL_FOLLOWS = re.compile(r"[ \t]*[\n{\[<]")
_VENDOR_PREFIX = re.compile(r"[^\W_]+_(?=(?:think(?:ing)?|thoughts?|(?:tool|function)_calls?)\Z)")
"""``longcat_think``, ``ant_thinking``. A prefix before a colon is removed from every
name.
"""

_DETAILS = re.compile(
    r"<details\s(?:[^<>]*\s)?type=[\"']?(reasoning|tool_calls|code_interpreter)\b", re.IGNORECASE
)
_DETAILS_END = re.compile(r"</details\s*>", re.IGNORECASE)
"""Open WebUI wraps a model's thoughts and calls in such elements."""

_BODY = r"[^<>\s=(),;!?\"'，。！？；：、（）“”]"
_MARK = re.compile(rf"<({_BODY}{{1,64}})(?:[\s=][^<>]{{0,256}})?>")
_MARK_BEGUN = re.compile(rf"<({_BODY}{{0,64}})([\s=][^<>]{{0,256}})?\Z")
_ATTRIBUTES = re.compile(r"\s*/?|[\s=].*=.*|=.*", re.DOTALL)
_PIPES = "|｜"
_PIPES_AT_AN_END = re.compile(r"\A[|｜](?!DSML[|｜])|[|｜]\Z")
_DSML = re.compile(r"(/?)[|｜]DSML[|｜]")
_PLAIN_TOKEN = re.compile(
    r"/?s|bos|eos|pad|unk|sep|cls|mask|unused\d{1,4}|0x[0-9a-f]{2}|(?:start|end)_(?:of|function)_\w{1,24}"
)
"""Special tokens without pipes: ``</s>``, ``<eos>``, ``<end_of_turn>``."""
_PLAIN_PAIRS = {
    "unused94": re.compile(r"<unused95>"),
    "start_function_call": re.compile(r"<end_function_call>"),
    "start_function_response": re.compile(r"<end_function_response>"),
}
_OPENING_TOKEN = re.compile(r"(?:(?:begin|start)_(?:of_)?)?(\w+?)(?:_begin|_start)?")
_HIDING_TOKEN = re.compile(
    r"think(?:ing)?|thoughts?|reasoning|python_tag|plugin|action|(?:tool|function)s?|"
    r"(?:tool|function)s?_(?:calls?|uses?|responses?|results?|outputs?|list)(?:_section)?"
)
"""Names of special tokens that hide the text after them, without ``begin``, ``start``
and ``of``.
"""
_OF_A_THOUGHT = re.compile(r"think|thought|reason|\Achannel\Z|\Astart\Z")
_STOPS = r"<\|(?:im_end|eot_id|eom_id|eot|end|endoftext|end_of_text|end_of_turn|return)\|>"

_HEADER_ENDS = {
    "channel": re.compile(r"<\|message\|>|\n"),
    "start": re.compile(r"(?=<)"),
    "im_start": re.compile(r"\n|<\|im_sep\|>"),
    "start_header_id": re.compile(r"<\|end_header_id\|>"),
    "start_of_role": re.compile(r"<\|end_of_role\|>"),
    "header_start": re.compile(r"<\|header_end\|>"),
    "start_of_turn": re.compile(r"\n"),
    "turn": re.compile(r"\n"),
}
"""Special tokens that open a message, and the pattern that ends its header: the role or
channel.
"""
_HEADER_CHARACTERS = 192
_ROLES = frozenset(
    {"user", "system", "human", "observation", "tool", "developer", "function", "ipython"}
)
_AFTER_ROLE = re.compile(
    r"(?=<(?:\|(?:im_start|start_header_id|start_of_role|header_start|start|turn|assistant|model)\|?|start_of_turn)>)"
)
"""The end of a message of another role: the next message."""
_AFTER_CHANNEL = re.compile(r"<\|(?:end|return|call)\|>|<channel\|>|(?=<\|(?:start|channel)\|?>)")

_BRACKET = re.compile(r"\[(/?[A-Z][A-Z_]{2,31})\]")
_BRACKET_BEGUN = re.compile(r"\[/?[A-Z_]{0,32}\Z")
_NEVER = re.compile(r"(?!)")
_THOUGHT_BRACKETS = {
    name: re.compile(rf"\[/{name}\]") for name in ("THINK", "THINKING", "THOUGHT", "REASONING")
}
_CALL_BRACKETS = {
    "TOOL_CALLS": _NEVER,
    "TOOL_CALL": re.compile(r"\[/TOOL_CALL\]"),
    "TOOL_RESULTS": re.compile(r"\[/TOOL_RESULTS\]"),
    "TOOL_REQUEST": re.compile(r"\[END_TOOL_REQUEST\]"),
    "AVAILABLE_TOOLS": re.compile(r"\[/AVAILABLE_TOOLS\]"),
    "SYSTEM_PROMPT": re.compile(r"\[/SYSTEM_PROMPT\]"),
}
"""The word in square brackets that opens a hidden part, and the pattern that closes it.
"""
_BRACKETED_TOKEN = re.compile(r"\[\|[a-z_]{1,24}\|\]")
_BRACKETED_TOKEN_BEGUN = re.compile(r"\[\|[a-z_]{0,24}(?:\|\Z|\Z)")
"""EXAONE's special tokens: ``[|endofturn|]``."""
_LONE_BRACKETS = frozenset(
    {"INST", "/INST", "BOS", "EOS", "PAD", "UNK", "ARGS", "CALL_ID", "END_TOOL_REQUEST"}
)

_CALL_JSON = re.compile(
    r'(?:\[\s*)?\{\s*(?:"(?:id|type)"\s*:\s*"[^"\n]{0,64}"\s*,\s*){0,2}(?:'
    r'"(?:name|function|function_name|tool|tool_name)"\s*:\s*"[\w.\-:/]{1,64}"\s*,'
    r'\s*"(?:arguments|parameters|args|kwargs|tool_input)"\s*:'
    r'|"(?:tool|function)_(?:calls?|uses?)"\s*:)'
)
_CALL_JSON_BEGUN = re.compile(
    r'(?:\[\s*|(?:\[\s*)?\{\s*(?:"[^"\n]{0,64}"\s*(?:[:,]\s*)?){0,8}(?:"[^"\n]{0,64})?)\Z'
)
_CALL_PYTHON = re.compile(r"\[\s*[A-Za-z_][\w.]{1,63}\(\s*[A-Za-z_]\w{0,31}\s*=(?!=)")
"""A list of calls in Python syntax with named arguments:
``[get_weather(city="Paris")]``.
"""
_CALL_PYTHON_BEGUN = re.compile(r"\[\s*[\w.]{0,64}(?:\(\s*\w{0,32}\s*=?)?\Z")

_KIMI = re.compile(r"◁(/?)think▷")
_KIMI_BEGUN = re.compile(r"◁/?\w{0,5}\Z")
_KIMI_END = re.compile(r"◁/think▷")

_QWEN = re.compile(r"✿(FUNCTION|ARGS|RESULT|RETURN)✿:? ?")
_QWEN_BEGUN = re.compile(r"✿(?:[A-Z]{0,8}|(?:FUNCTION|ARGS|RESULT|RETURN)✿:?)\Z")
_QWEN_ANSWERS = re.compile(r"(?=✿RETURN✿)")
"""Qwen-Agent writes a call, its arguments and its result; then the answer."""

_REACT = re.compile(r"(?:Thought|Action)\s{0,2}:")
_REACT_BEGUN = re.compile(r"(?:Th?o?u?g?h?t?|Ac?t?i?o?n?)\s{0,2}\Z")
_REACT_FOLLOWS = re.compile(r"\n\s{0,8}(?:Action(?: Input)?|Observation|Final Answer)\s{0,2}:")
_REACT_ANSWERS = re.compile(r"\n\s{0,8}Final Answer\s{0,2}:")
"""ReAct repeats a thought, an action with its input, and an observation, and ends with
the answer.
"""
_SMALL_THOUGHT = re.compile(r"\[(?:think|thinking|reasoning)\]")
_SMALL_THOUGHT_BEGUN = re.compile(r"\[[a-z]{0,9}\Z")
_SMALL_THOUGHT_ENDS = re.compile(r"\[/(?:think|thinking|reasoning)\]")


def _any_beginning(word: str) -> str:
    """Return a pattern of any beginning of ``word``, the whole included."""
    return "".join(f"(?:{re.escape(letter)}" for letter in word) + ")?" * len(word)


_SPACED_TAG = re.compile(
    rf"<\s{{0,3}}(/?)\s{{0,3}}(?:{'|'.join(sorted(THOUGHTS, key=len, reverse=True))})\s{{0,3}}>",
    re.IGNORECASE,
)
"""``< think >``: some models write their own tags in this way."""
_SPACED_TAG_BEGUN = re.compile(r"<(?=[\s/])\s{0,3}/?\s{0,3}(\w{0,24})(\s{0,3})\Z")

_FUNCTOOLS = re.compile(r"functools(?=\[\s{0,8}\{)")
_FUNCTOOLS_BEGUN = re.compile(rf"(?:{_any_beginning('functools')}|functools\[\s{{0,8}})\Z")
"""Calls of Phi-4-mini and Functionary: ``functools[{"name": ...}]``."""

_CHANNEL_NAME = re.compile(r"(analysis|final)(?=[^\W\d_a-z])")
_CHANNEL_NAME_BEGUN = re.compile(rf"(?:{_any_beginning('analysis')}|{_any_beginning('final')})\Z")
_FINAL_CHANNEL = re.compile(r"assistant\s{0,2}final(?:\s?json)?")
"""gpt-oss when the server has removed its special tokens and left the names of its
channels: ``analysisThe user asks ...assistantfinalHello``. The name directly precedes a
capital letter or a letter of a script without capitals.
"""

_TRIGGERS = re.compile(rf"[<\[{{◁✿]|f(?=unctools\[|{_any_beginning('unctools')}\Z)")
_FIRST_TRIGGERS = re.compile(
    rf"[<\[{{◁✿TA]|f(?=unctools\[|inal[^\W\d_a-z]|{_any_beginning('unctools')}\Z|"
    rf"{_any_beginning('inal')}\Z)|a(?=nalysis[^\W\d_a-z]|{_any_beginning('nalysis')}\Z)"
)
"""At the beginning of a reply, where words alone may mark a thought."""

_QUOTES = frozenset("`\"'“‘「『")
_LEAD_CHARACTERS = 256


class HiddenText(Scanner):
    """Filters the streamed text of one reply.

    It hides pairs of tags with their content, anywhere in the text (an unclosed pair
    hides the rest), special tokens such as ``<|im_end|>``, messages of other roles and
    channels, and tool calls in JSON. Text in a code block, or directly after a
    quotation mark or a backtick, mentions these constructs and is kept.
    """

    triggers = _FIRST_TRIGGERS

    def __init__(
        self, tags: Iterable[str] = (), *, inside: bool = False, only_thoughts: bool = False
    ) -> None:
        """``tags``: names of further tags whose contents are hidden, in any case.

        ``inside``: the reply begins within a thought whose opening tag is not part of
        the text. ``only_thoughts``: calls, other roles and the tokens between messages
        are kept.
        """
        super().__init__()
        self._only_thoughts = only_thoughts
        self._own = frozenset(tag.lower() for tag in tags)
        self._shown = ""
        """The last character that was shown."""
        self._lead = ""
        """White space at the beginning. It is dropped if something hidden follows."""
        self._trim = inside
        if inside:
            self.skip(Until(_end_of_tag(THOUGHTS)))

    def push_text(self, text: str) -> str:
        """Filter the next piece of the reply. Returns the visible text, perhaps ""."""
        return "".join(map(self._tidy, self.scan(text)))

    def finish_text(self) -> str:
        """End the reply. Returns the text that was undecided; an unfinished thought
        stays hidden.
        """
        rest = "".join(map(self._tidy, self.scan_rest()))
        rest, self._lead = self._lead + rest, ""
        return rest

    def decide(self, text: str, *, final: bool) -> tuple[int, str] | None:
        """Decide which construct ``text`` begins with, as `Scanner.decide` says."""
        if self.code.in_block or self.previous in _QUOTES:
            return 1, text[0]
        decided: tuple[int, str] | None
        match text[0]:
            case "<":
                decided = self._decide_mark(text)
            case "◁":
                decided = self._decide_kimi(text)
            case "✿":
                decided = self._decide_qwen(text, final=final)
            case "T" | "A":
                decided = self._decide_react(text, final=final)
            case "f" | "a":
                decided = self._decide_bare_word(text)
            case _:
                decided = self._decide_bracket(text)
        if decided is None and final:
            return 1, text[0]
        return decided

    def plain(self, text: str) -> None:
        """Note plain text: the beginning of the reply has passed."""
        super().plain(text)
        if self.triggers is not _TRIGGERS and not text.isspace():
            self.triggers = _TRIGGERS

    def _tidy(self, run: Run) -> str:
        """Remove white space that only hidden text separated from other white space."""
        if run.source != run.result:
            self._trim, self._lead = True, ""
            return ""
        text = run.result
        if self._trim:
            if self._shown in ("", "\n"):
                text = text.lstrip()
            elif self._shown.isspace():
                text = text.lstrip(" \t")
            self._trim = not text
        if not self._shown:
            text = self._lead + text
            if not text.strip() and len(text) <= _LEAD_CHARACTERS:
                self._lead = text
                return ""
            self._lead = ""
        self._shown = text[-1:] or self._shown
        return text

    def _hide(self, length: int, skip: Skip | None = None) -> tuple[int, str]:
        if skip is not None:
            self.skip(skip)
        return length, ""

    def _decide_mark(self, text: str) -> tuple[int, str] | None:
        if spaced := _SPACED_TAG.match(text):
            return self._hide(spaced.end(), None if spaced[1] else Until(_end_of_tag(THOUGHTS)))
        if (opened := _SPACED_TAG_BEGUN.match(text)) and _begins_a_thought(opened[1], opened[2]):
            return None
        mark = _MARK.match(text)
        if mark is None:
            begun = _MARK_BEGUN.match(text)
            undecided = begun is not None and (
                begun[2] is None or self._hidden_by_tag(begun[1]) or begun[1].lower() == "details"
            )
            return None if undecided else (1, "<")
        body, length = mark[1], mark.end()
        if length > len(body) + 2 and _PIPES_AT_AN_END.search(body):
            return 1, "<"  # a special token has no attributes
        if body[0] in _PIPES and not _DSML.match(body):
            name = body.strip(_PIPES).replace("▁", "_").lower()
            kept = self._only_thoughts and not _OF_A_THOUGHT.search(name)
            return (1, "<") if kept else self._hide(length, _after_token(name))
        if not self._only_thoughts or body == "unused94":
            if body == "start_of_turn":
                return self._hide(length, _HeaderSkip(body))
            if body[-1] in _PIPES or _PLAIN_TOKEN.fullmatch(body.lower()):
                return self._hide(
                    length, Until(_PLAIN_PAIRS[body]) if body in _PLAIN_PAIRS else None
                )
        details = _DETAILS.match(mark[0])
        if details is not None and (details[1].lower() == "reasoning" or not self._only_thoughts):
            return self._hide(length, Until(_DETAILS_END))
        names = self._hidden_by_tag(body)
        if not names or not _ATTRIBUTES.fullmatch(mark[0], 1 + len(body), length - 1):
            return 1, "<"
        closed = body.startswith("/") or mark[0].endswith("/>")
        if not closed and names <= _COMMON_WORDS - self._own and mark[0] == f"<{body}>":
            follows = text[length:]
            if not follows.strip(" \t"):
                return None
            if not _CALL_FOLLOWS.match(follows):
                return 1, "<"
        return self._hide(length, None if closed else Until(_end_of_tag(names)))

    def _hidden_by_tag(self, body: str) -> frozenset[str]:
        """Return the names of tags that close this one, or an empty set if it hides
        nothing.
        """
        name = _DSML.sub(r"\1", body).strip("/").rpartition(":")[2].lower()
        if name in self._own:
            return frozenset({name})
        name = _VENDOR_PREFIX.sub("", name)
        if name in THOUGHTS:
            return THOUGHTS
        return frozenset({name}) if name in CALLS and not self._only_thoughts else frozenset()

    def _decide_kimi(self, text: str) -> tuple[int, str] | None:
        mark = _KIMI.match(text)
        if mark is None:
            return None if _KIMI_BEGUN.match(text) else (1, "◁")
        return self._hide(mark.end(), None if mark[1] else Until(_KIMI_END))

    def _decide_qwen(self, text: str, *, final: bool) -> tuple[int, str] | None:
        if self._only_thoughts:
            return 1, "✿"
        if not final and _QWEN_BEGUN.match(text):
            return None
        mark = _QWEN.match(text)
        if mark is None:
            return 1, "✿"
        return self._hide(mark.end(), None if mark[1] == "RETURN" else Until(_QWEN_ANSWERS))

    def _decide_react(self, text: str, *, final: bool) -> tuple[int, str] | None:
        if self._only_thoughts or _REACT.match(text) is None:
            undecided = not self._only_thoughts and _REACT_BEGUN.match(text)
            return None if undecided else (1, text[0])
        if _REACT_FOLLOWS.search(text) is None:
            return (1, text[0]) if final else None
        return self._hide(1, Until(_REACT_ANSWERS))

    def _decide_bare_word(self, text: str) -> tuple[int, str] | None:
        if self._only_thoughts:
            return 1, text[0]
        first = self.triggers is _FIRST_TRIGGERS
        if first and (channel := _CHANNEL_NAME.match(text)):
            return self._hide(
                channel.end(), Until(_FINAL_CHANNEL) if channel[1] == "analysis" else None
            )
        if self.previous.isalnum():
            undecided = False
        elif called := _FUNCTOOLS.match(text):
            return self._hide(called.end(), UntilBalanced())
        else:
            undecided = _FUNCTOOLS_BEGUN.match(text) is not None
        undecided = undecided or (first and _CHANNEL_NAME_BEGUN.match(text) is not None)
        return None if undecided else (1, text[0])

    def _decide_bracket(self, text: str) -> tuple[int, str] | None:
        if self.triggers is _FIRST_TRIGGERS:
            if small := _SMALL_THOUGHT.match(text):
                return self._hide(small.end(), Until(_SMALL_THOUGHT_ENDS))
            if _SMALL_THOUGHT_BEGUN.match(text):
                return None
        if not self._only_thoughts and (_CALL_JSON.match(text) or _CALL_PYTHON.match(text)):
            self.skip(UntilBalanced())
            return 0, ""
        if not self._only_thoughts and (token := _BRACKETED_TOKEN.match(text)):
            return self._hide(token.end())
        word = _BRACKET.match(text)
        if word is None:
            begun = (_CALL_JSON_BEGUN, _CALL_PYTHON_BEGUN, _BRACKETED_TOKEN_BEGUN, _BRACKET_BEGUN)
            undecided = any(pattern.match(text) for pattern in begun)
            return None if undecided else (1, text[0])
        if self._only_thoughts and word[1].strip("/") not in _THOUGHT_BRACKETS:
            return 1, "["
        end = _THOUGHT_BRACKETS.get(word[1]) or _CALL_BRACKETS.get(word[1])
        if end is not None:
            return self._hide(word.end(), Until(end))
        closes = word[1].startswith("/") and (
            word[1][1:] in _THOUGHT_BRACKETS or word[1][1:] in _CALL_BRACKETS
        )
        return self._hide(word.end()) if closes or word[1] in _LONE_BRACKETS else (1, "[")


class _HeaderSkip:
    """Skips the header of a message, and the message if it is not for the user."""

    kept = _HEADER_CHARACTERS

    def __init__(self, token: str) -> None:
        self._token = token
        self._words = ""

    def find_end(self, text: str, at: int) -> int | None:
        """Return the end of the header, as `Skip.find_end`. Text without an end is not
        a header.
        """
        end = _HEADER_ENDS[self._token].search(text, at, at + _HEADER_CHARACTERS)
        if end is not None:
            self._words = text[at : end.start()]
            return end.end()
        return at if len(text) - at >= _HEADER_CHARACTERS else None

    def then(self) -> Skip | None:
        """Return how to skip the message, or None if it is for the user."""
        words = self._words.lower().split("<")[0].split()
        if self._token == "channel":
            # In gpt-oss's "commentary" channel, a call names its recipient; a message
            # without one is for the user.
            shown = (
                not words
                or words[0].startswith("final")
                or (words[0] == "commentary" and len(words) == 1)
            )
            return None if shown else Until(_AFTER_CHANNEL)
        foreign = bool(words) and (words[0] in _ROLES or words[0].startswith("functions."))
        return Until(_AFTER_ROLE) if foreign else None


def _after_token(name: str) -> Skip | None:
    """Return what a special token hides besides itself."""
    if name in _HEADER_ENDS:
        return _HeaderSkip(name)
    if name in _ROLES:
        return Until(_AFTER_ROLE)
    opening = _OPENING_TOKEN.fullmatch(name)
    if opening is None or not _HIDING_TOKEN.fullmatch(opening[1]):
        return None
    what = opening[1].replace("_", "[_▁]")
    end = rf"<[|｜](?:/{what}|end[_▁](?:of[_▁])?{what}|{what}[_▁]end)[|｜]>|<{what}\|>|{_STOPS}"
    return Until(re.compile(end, re.IGNORECASE))


def _begins_a_thought(begun: str, space: str) -> bool:
    """Return whether a name of ``THOUGHTS`` begins with ``begun``, or equals it if
    white space follows.
    """
    name = begun.lower()
    return name in THOUGHTS if space and name else any(tag.startswith(name) for tag in THOUGHTS)


def _end_of_tag(names: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    return re.compile(
        rf"<\s{{0,3}}/\s{{0,3}}(?:[|｜]DSML[|｜])?(?:[\w.-]{{1,24}}:)?(?:[^\W_]+_)?(?:{alternatives})\s*>",
        re.IGNORECASE,
    )
