"""The sections of an agent."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from voicechat.config.section import ConfigSection, Text, Texts, as_tuple
from voicechat.config.tool_sections import ClientToolConfig, FillerConfig, in_both_languages
from voicechat.names import DEFAULT
from voicechat.session.agent import VARIABLE_NAME, VARIABLES, IdlePrompts, Keypad, references
from voicechat.session.filler import AFTER_MS
from voicechat.session.types import DETECTION_BOUNDS, TurnDetection

_LANGUAGE = r"^([A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*)?$"
_DETECTION = TurnDetection()
_IDLE = IdlePrompts(prompts=())
_KEYPAD = Keypad()


def _detected(name: str) -> Any:
    """Return the bounds of a field of ``TurnDetection``, the same as for clients."""
    low, high = DETECTION_BOUNDS[name]
    return Field(ge=low, le=high)


class TurnDetectionConfig(ConfigSection):
    """``[agents.NAME.turn_detection]``: the server detects the ends of the user's
    turns. The table may be empty.
    """

    threshold: Annotated[float, _detected("threshold")] = _DETECTION.threshold
    """The probability above which a sound counts as speech."""
    prefix_padding_ms: Annotated[int, _detected("prefix_padding_ms")] = _DETECTION.prefix_padding_ms
    """How much audio before the detected start counts as speech."""
    silence_duration_ms: Annotated[int, _detected("silence_duration_ms")] = (
        _DETECTION.silence_duration_ms
    )
    """How much silence ends a turn."""
    create_response: bool = _DETECTION.create_response
    """False: the end of a turn is reported without a reply."""
    interrupt_response: bool = _DETECTION.interrupt_response
    """False: speech does not interrupt a reply."""
    min_interruption_ms: Annotated[int, _detected("min_interruption_ms")] = (
        _DETECTION.min_interruption_ms
    )
    """How much speech interrupts a reply."""
    min_interruption_words: Annotated[int, _detected("min_interruption_words")] = (
        _DETECTION.min_interruption_words
    )
    """How many words interrupt a reply; 0: see `[hands_free] interrupt_by`."""

    @property
    def detection(self) -> TurnDetection:
        """The session's form of this section."""
        return TurnDetection(**dict(self))


class IdlePromptsConfig(ConfigSection):
    """``[agents.NAME.idle_prompts]``: what the agent says to a silent user. The goodbye
    follows the last prompt.
    """

    prompts: Annotated[Texts, Field(min_length=1)]
    """The prompts in order; the last one is repeated."""
    after_s: Annotated[float, Field(ge=1, le=3600)] = _IDLE.after_ms / 1000
    """The silence before each prompt and before the goodbye, counted from the end of
    the last speech of either side.
    """
    times: Annotated[int, Field(ge=1, le=100)] | None = None
    """The number of prompts before the goodbye; unset: each prompt once. The count
    restarts when the user speaks.
    """

    @property
    def idle_prompts(self) -> IdlePrompts:
        """The session's form of this section."""
        times = self.times or len(self.prompts)
        return IdlePrompts(prompts=self.prompts, after_ms=round(self.after_s * 1000), times=times)


class KeypadConfig(ConfigSection):
    """``[agents.NAME.keypad]``: how the keys that a caller presses form an entry, which
    the model reads as `DTMF: 1234`.
    """

    terminator: Annotated[str, Field(pattern=r"^[0-9*#A-D]?$")] = _KEYPAD.terminator
    """The key that completes an entry; empty: none."""
    timeout_s: Annotated[float, Field(ge=0.5, le=60)] = _KEYPAD.timeout_ms / 1000
    """An entry is complete when no further key is pressed for this long."""
    most: Annotated[int, Field(ge=1, le=256)] = _KEYPAD.most
    """An entry is complete when it has this many keys."""
    tool: str = ""
    """The `[tools.NAME]` that the model must call with each entry; empty: the model
    decides what to do with it.
    """

    @property
    def keypad(self) -> Keypad:
        """The session's form of this section."""
        timeout_ms = round(self.timeout_s * 1000)
        return Keypad(
            terminator=self.terminator, timeout_ms=timeout_ms, most=self.most, tool=self.tool
        )


class AgentConfig(ConfigSection):
    """``[agents.NAME]``: an agent that answers, with the settings that a telephone or
    small device cannot send. All texts may contain `{variables}`.
    """

    llm: Text = DEFAULT
    """The chat model, by the name of its section."""
    asr: Text = DEFAULT
    """The recogniser."""
    tts: Text = DEFAULT
    """The synthesiser."""
    voice: str = ""
    """One of the synthesiser's voices; empty: its default."""
    instructions: str = ""
    """The system message, which precedes all others."""
    instructions_by_language: dict[Literal["zh", "ja", "ko", "en"], str] = {}
    """Used instead of `instructions` if the user's last words were in this language, as
    their script shows. Small models answer in the language of their instructions.
    """
    greeting: str = ""
    """What the agent says first; it can be interrupted. Empty: the user speaks
    first.
    """
    greeting_prompt: str = ""
    """A prompt with which the chat model writes the greeting, instead of
    `greeting`.
    """
    language: Annotated[str, Field(pattern=_LANGUAGE)] = ""
    """The language until the user has spoken, such as `en` or `zh-CN`. Empty:
    unknown.
    """
    tools: Texts | None = None
    """The `[tools.NAME]` that the model may call; unset: all."""
    knowledge: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[\w.\-]{1,64}$")], ...], BeforeValidator(as_tuple)
    ] = ()
    """Names of knowledge bases that it answers from, besides the one of its own name.
    A base of any name exists as soon as an agent names it.
    """
    search_knowledge: bool = False
    """True: the model has a tool `search_knowledge`, with which it searches these bases
    by itself, besides what is searched for every question.
    """
    turn_detection: TurnDetectionConfig | None = None
    """How the ends of the user's turns are detected (see the table below). Unset: as
    the client requests.
    """
    idle_prompts: IdlePromptsConfig | None = None
    """What the agent says to a silent user (see the table below). Unset: nothing."""
    goodbye: str = ""
    """What the agent says before the server ends the conversation."""
    max_duration_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """The conversation ends after this time, with the goodbye. Unset: no limit."""
    memory: Literal["none", "device"] = "none"
    """``device``: the agent remembers earlier conversations of the same paired device:
    a summary, which its chat model writes, and the last turns.
    """
    record: Literal["none", "text", "audio"] = "none"
    """What is recorded of its conversations: nothing, everything but the audio, or the
    audio too. See [records](records.md), also for what users must be told.
    """
    end_conversation: bool = False
    """True: the model has a tool `end_conversation`, which ends the conversation after
    the model's last words.
    """
    filler: Annotated[FillerConfig, BeforeValidator(in_both_languages)] | None = None
    """What the agent says while a client, such as a device, carries out a tool, if
    nothing of the reply has been spoken: a text, or the table below. Unset:
    `One moment, please.` or `请稍等。` on devices, nothing elsewhere.
    """
    filler_after_ms: Annotated[int, Field(ge=0, le=60_000)] = AFTER_MS
    """How long a tool may take before the filler is spoken."""
    keypad: KeypadConfig | None = None
    """How the keys that a caller presses form an entry (see the table below). Unset:
    with the defaults.
    """
    client_tools: dict[
        Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")], ClientToolConfig
    ] = {}
    """`[agents.NAME.client_tools.NAME]`: functions that RTVI clients carry out."""
    transfers: dict[Text, Text] = {}
    """To whom the model may transfer the call with its tool `transfer`: a number or
    address for each name, such as `{ desk = "+493012345" }`.
    """
    variables: dict[str, str] = {}
    """Further variables that connections may set, with their defaults. `{called}`,
    `{caller}`, `{device}`, `{date}`, `{time}` and `{language}` always exist.
    """
    also: Texts = ()
    """Other names of the agent: a `model` that stock clients have compiled in, a called
    number, a device's id, a key's id. `*`: any name that nothing else has.
    """

    @model_validator(mode="after")
    def _greets_in_one_way(self) -> "AgentConfig":
        if self.greeting and self.greeting_prompt:
            raise ValueError("with greeting or with greeting_prompt, not with both")
        return self

    @field_validator(
        "instructions", "greeting", "greeting_prompt", "goodbye", "idle_prompts", mode="after"
    )
    @classmethod
    def _braces_are_variables(cls, value: Any) -> Any:
        for text in value.prompts if isinstance(value, IdlePromptsConfig) else (value or "",):
            list(references(text))
        return value

    @field_validator("instructions_by_language", mode="after")
    @classmethod
    def _braces_in_each_are_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            list(references(text))
        return value

    @field_validator("variables", mode="after")
    @classmethod
    def _variables_have_names(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not VARIABLE_NAME.fullmatch(name):
                raise ValueError(f"by names of letters, digits and _ ({name!r} is none)")
            if name in VARIABLES:
                raise ValueError(f"without {name!r}, which every connection brings")
        return variables

    def texts(self) -> dict[str, str]:
        """Return all texts that may contain variables, by their key."""
        keys = ("instructions", "greeting", "greeting_prompt", "goodbye")
        found: dict[str, str] = {key: getattr(self, key) for key in keys}
        for language, text in self.instructions_by_language.items():
            found[f"instructions_by_language.{language}"] = text
        prompts = self.idle_prompts.prompts if self.idle_prompts else ()
        return found | {
            f"idle_prompts.prompts.{number}": text for number, text in enumerate(prompts)
        }
