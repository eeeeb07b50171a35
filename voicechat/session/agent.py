"""Who answers a conversation: services, voice, what is said first, in silence and at
the end.

A value, no I/O.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from voicechat.names import DEFAULT
from voicechat.session.filler import AFTER_MS, Filler
from voicechat.session.types import TurnDetection

VARIABLES = ("called", "caller", "device", "date", "time", "language")
"""What every connection brings: the number that was called and the one that calls, the
device's id, the date and time at which it connects, and the agent's language. What a
connection does not know is empty.
"""
MAX_VALUE_CHARACTERS = 200
"""Of a variable's value: it comes from the client, and a model reads it with every
turn.
"""
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_REFERENCE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePrompts:
    """What is said when the user stays silent while it is his turn."""

    prompts: tuple[str, ...]
    """One after the other; the last one again when there are to be more."""
    after_ms: int = 10_000
    """Silence before each, from the end of what was last heard, the user's or the
    agent's.
    """
    times: int = 1
    """How many prompts before the goodbye. Speech of the user begins anew."""

    def prompt(self, number: int) -> str | None:
        """The prompt of that number, counted from 0; None: it is time for the
        goodbye.
        """
        return self.prompts[min(number, len(self.prompts) - 1)] if number < self.times else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keypad:
    """How keys that the user presses become an entry: a turn of the user."""

    terminator: str = "#"
    """The key that completes an entry, and is no part of it; empty: none does."""
    timeout_ms: int = 2_000
    """After so long without a further key an entry is complete."""
    most: int = 32
    """So many keys complete an entry."""
    tool: str = ""
    """The tool that the model is made to call with an entry; empty: it reads the entry
    and does as it sees fit.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent. The default one is a conversation without any of this.

    The client brings all, as ever.
    """

    name: str = DEFAULT
    llm: str = DEFAULT
    """The configured chat model that answers; the next two are the recogniser and the
    synthesiser."""
    asr: str = DEFAULT
    tts: str = DEFAULT
    voice: str = ""
    """The synthesiser's voice; empty: its default."""
    instructions: str = ""
    """The system message, before all others; empty: none."""
    instructions_by_language: Mapping[str, str] = field(default_factory=dict)
    """In its place where the user's last words are in that language (``zh``, ``ja``,
    ``ko``, ``en``): small models answer in the language of their instructions.
    """
    greeting: str = ""
    """Said first of all, interruptible; empty: the user speaks first."""
    greeting_prompt: str = ""
    """Instead of ``greeting``: what the model is asked so that it greets in words of
    its own.
    """
    language: str = ""
    """A BCP 47 tag such as ``en`` or ``zh-CN``; empty: whatever the user speaks."""
    tools: tuple[str, ...] | None = None
    """Names of configured tools that the model may call; None: all."""
    turn_detection: TurnDetection | None = None
    """How the ends of the user's turns are found; None: as the client asks."""
    idle_prompts: IdlePrompts | None = None
    goodbye: str = ""
    """Said before the server ends the conversation; empty: it ends without a word."""
    max_duration_ms: int | None = None
    """After so long the conversation ends with ``goodbye``; None: never."""
    end_conversation: bool = False
    """Whether the model has the tool ``end_conversation``, with which it ends the
    conversation after its last words.
    """
    filler: Filler | None = None
    """What is said while the client carries out a tool; None: nothing, or what the
    protocol of the client says.
    """
    filler_after_ms: int = AFTER_MS
    """How long that may take before."""
    keypad: Keypad = Keypad()
    transfers: Mapping[str, str] = field(default_factory=dict)
    """Where the model may pass the conversation on to with its tool ``transfer``: by
    name, a number or an address that the line understands. Empty: there is no tool.
    """
    client_tools: tuple[Mapping[str, object], ...] = ()
    """Functions that the client carries out, in the form of chat completions, where the
    client's protocol has no way to name them itself.
    """
    remembers: bool = False
    """Whether it remembers earlier conversations of the same device."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables besides ``VARIABLES`` that a connection may bring, with what they are
    when it does not.
    """

    @property
    def greets(self) -> bool:
        """Whether the agent speaks first."""
        return bool(self.greeting or self.greeting_prompt)

    def with_instructions(self, more: str) -> "Agent":
        """Give the agent with ``more`` behind its instructions."""
        return replace(
            self,
            instructions=f"{self.instructions}{more}".strip(),
            instructions_by_language={
                language: f"{text}{more}"
                for language, text in self.instructions_by_language.items()
            },
        )

    def filled(self, values: Mapping[str, str]) -> "Agent":
        """Give the agent with every ``{variable}`` of its texts replaced.

        Of ``values`` only ``VARIABLES`` and the agent's own ``variables`` count; the
        rest is ignored. A value is cut to ``MAX_VALUE_CHARACTERS`` and loses its line
        breaks: it is data, and must not look like further instructions.
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
    """Name each variable that ``text`` refers to.

    Raises ``ValueError`` for a brace that belongs to no reference; ``{{`` and ``}}``
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
