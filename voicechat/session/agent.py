"""An agent that answers conversations: its services, its voice, and what it says first,
during silence and at the end.

A value, no I/O.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from voicechat.names import DEFAULT
from voicechat.session.filler import AFTER_MS, Filler
from voicechat.session.types import TurnDetection

VARIABLES = ("called", "caller", "device", "date", "time", "language")
"""The variables that every connection has: the called and the calling number, the
device's id, the date and time of the connection, and the agent's language. A variable
whose value the connection does not know is empty.
"""
MAX_VALUE_CHARACTERS = 200
"""The longest value of a variable: it comes from the client, and a model reads it with
every turn.
"""
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_REFERENCE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePrompts:
    """What the agent says when the user stays silent although it is the user's turn."""

    prompts: tuple[str, ...]
    """The prompts in order; the last one is repeated if there are to be more."""
    after_ms: int = 10_000
    """The silence before each prompt, from the end of the last audio that was heard,
    the user's or the agent's.
    """
    times: int = 1
    """How many prompts precede the goodbye. Speech of the user restarts the count."""

    def prompt(self, number: int) -> str | None:
        """Return the prompt of that number, counted from 0; None: it is time for the
        goodbye.
        """
        return self.prompts[min(number, len(self.prompts) - 1)] if number < self.times else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keypad:
    """How the keys that a user presses form an entry, which becomes a turn of the
    user.
    """

    terminator: str = "#"
    """The key that completes an entry and is not part of it; empty: no key does."""
    timeout_ms: int = 2_000
    """An entry is complete after this long without a further key."""
    most: int = 32
    """This many keys complete an entry."""
    tool: str = ""
    """The tool that the model must call with an entry; empty: the model reads the entry
    and decides by itself.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent. The default agent sets nothing: the client brings all settings."""

    name: str = DEFAULT
    llm: str = DEFAULT
    """The configured chat model that answers; ``asr`` and ``tts`` name the recogniser
    and the synthesiser.
    """
    asr: str = DEFAULT
    tts: str = DEFAULT
    voice: str = ""
    """The synthesiser's voice; empty: its default."""
    instructions: str = ""
    """The system message, before all others; empty: none."""
    instructions_by_language: Mapping[str, str] = field(default_factory=dict)
    """The system message to use instead when the user's last words are in that language
    (``zh``, ``ja``, ``ko``, ``en``): small models answer in the language of their
    instructions.
    """
    greeting: str = ""
    """Spoken at the beginning, interruptible; empty: the user speaks first."""
    greeting_prompt: str = ""
    """A prompt that makes the model greet in its own words; it takes the place of
    ``greeting``.
    """
    language: str = ""
    """A BCP 47 tag such as ``en`` or ``zh-CN``; empty: any language."""
    tools: tuple[str, ...] | None = None
    """Names of the configured tools that the model may call; None: all."""
    knowledge: tuple[str, ...] = ()
    """Names of knowledge bases that it reads besides the one of its own name."""
    search_knowledge: bool = False
    """Whether the model has the tool ``search_knowledge``, with which it searches them
    by itself.
    """
    turn_detection: TurnDetection | None = None
    """How to find the ends of the user's turns; None: as the client asks."""
    idle_prompts: IdlePrompts | None = None
    goodbye: str = ""
    """Spoken before the server ends the conversation; empty: nothing is spoken."""
    max_duration_ms: int | None = None
    """The conversation ends with ``goodbye`` after this long; None: never."""
    end_conversation: bool = False
    """Whether the model has the tool ``end_conversation``, which ends the conversation
    after the model's last words.
    """
    filler: Filler | None = None
    """What is spoken while the client carries out a tool; None: nothing, or what the
    client's protocol specifies.
    """
    filler_after_ms: int = AFTER_MS
    """How long a tool may run before the filler is spoken."""
    keypad: Keypad = Keypad()
    transfers: Mapping[str, str] = field(default_factory=dict)
    """The targets of the model's tool ``transfer``: names, each with a number or an
    address that the line understands. Empty: the model has no such tool.
    """
    client_tools: tuple[Mapping[str, object], ...] = ()
    """Functions that the client carries out, in the form of chat completions. For
    clients whose protocol cannot declare functions.
    """
    record: str = "none"
    """What is recorded of its conversations: ``none``, ``text``, or ``audio`` too."""
    remembers: bool = False
    """Whether the agent remembers earlier conversations with the same device."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables besides ``VARIABLES`` that a connection may bring, with their
    defaults.
    """

    @property
    def greets(self) -> bool:
        """Whether the agent speaks first."""
        return bool(self.greeting or self.greeting_prompt)

    def with_instructions(self, more: str) -> "Agent":
        """Return the agent with ``more`` appended to its instructions."""
        return replace(
            self,
            instructions=f"{self.instructions}{more}".strip(),
            instructions_by_language={
                language: f"{text}{more}"
                for language, text in self.instructions_by_language.items()
            },
        )

    def filled(self, values: Mapping[str, str]) -> "Agent":
        """Return the agent with every ``{variable}`` of its texts replaced.

        Of ``values`` only ``VARIABLES`` and the agent's own ``variables`` are used. A
        value is cut to ``MAX_VALUE_CHARACTERS`` and loses its line breaks, because it
        is data and must not look like further instructions.
        """
        known = dict.fromkeys(VARIABLES, "") | dict(self.variables)
        known |= {name: _clean(value) for name, value in values.items() if name in known}
        known["language"] = known["language"] or self.language
        idle = self.idle_prompts
        if idle is not None:
            idle = replace(idle, prompts=tuple(_fill(prompt, known) for prompt in idle.prompts))
        return replace(
            self,
            instructions=_fill(self.instructions, known),
            instructions_by_language={
                language: _fill(text, known)
                for language, text in self.instructions_by_language.items()
            },
            greeting=_fill(self.greeting, known),
            greeting_prompt=_fill(self.greeting_prompt, known),
            goodbye=_fill(self.goodbye, known),
            idle_prompts=idle,
        )


def references(text: str) -> Iterator[str]:
    """Return the name of each variable in ``text``.

    Raises ``ValueError`` for a brace that belongs to no variable; ``{{`` and ``}}``
    stand for braces.
    """
    for found in _REFERENCE.finditer(text):
        if found[1] is not None:
            yield found[1]
        elif len(found[0]) == 1:
            around = text[max(0, found.start() - 10) : found.end() + 10]
            raise ValueError(f"a lone brace in {around!r}; write {{{{ and }}}} for braces")


def _fill(text: str, values: Mapping[str, str]) -> str:
    def filled(found: re.Match[str]) -> str:
        return values.get(found[1], found[0]) if found[1] is not None else found[0][0]

    return _REFERENCE.sub(filled, text)


def _clean(value: str) -> str:
    return _CONTROL.sub(" ", value[:MAX_VALUE_CHARACTERS]).strip()
