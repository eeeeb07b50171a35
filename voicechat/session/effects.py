"""What the runtime must do after an event, in the imperative. Performing an effect
never waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from voicechat.session.latency_breakdown import LatencyBreakdown
from voicechat.session.notices import Ended, Ending, Notice, Outcome
from voicechat.session.types import (
    ChatSettings,
    InputSettings,
    Message,
    ToolOutcome,
    TurnDetection,
    VoiceSettings,
)


@dataclass(frozen=True, slots=True)
class Send:
    """Send the client's dialect a notice."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class OpenRecognition:
    """Start recogniser ``stream``.

    With ``replay_of``, it first gets the audio that this stream received since its last
    final result. With ``from_ms``, it gets the connection's audio from that time on, as
    far as it is still stored, and then all audio of the route ``LISTEN``.
    """

    stream: int
    settings: InputSettings
    replay_of: int | None = None
    from_ms: int | None = None


class Route(Enum):
    """Where the client's audio goes."""

    AWAIT = "await"
    """Nowhere yet: the next frame causes ``AudioStarted`` and goes where that event's
    effects say. A new connection has this route.
    """
    RECOGNISE = "recognise"
    """To one recogniser stream."""
    LISTEN = "listen"
    """Hands-free: to voice detection, and to the recogniser streams that were opened
    with ``from_ms``.
    """
    SKIP = "skip"
    """Nowhere; the audio only advances the connection's time line."""
    DROP = "drop"
    """Nowhere, and it is not decoded: the session is over."""


@dataclass(frozen=True, slots=True)
class RouteAudio:
    """Send the client's audio there from now on. Performed once per change, not for
    every frame.
    """

    route: Route
    settings: InputSettings
    """How to read the audio. After a change, a new decoder reads the audio that
    follows.
    """
    stream: int = 0
    """The stream, with ``RECOGNISE``."""
    detection: TurnDetection | None = None
    """The settings of turn detection, with ``LISTEN``."""


@dataclass(frozen=True, slots=True)
class FinishRecognition:
    """No more audio follows for ``stream``: ask for its last result."""

    stream: int


@dataclass(frozen=True, slots=True)
class DropRecognition:
    """Cancel ``stream`` and discard its audio."""

    stream: int


@dataclass(frozen=True, slots=True)
class PrepareReply:
    """Have the chat model process this prompt, so that it answers one with the same
    beginning sooner. It may be dropped.
    """

    messages: tuple[Message, ...]
    chat: ChatSettings


@dataclass(frozen=True, slots=True)
class StartReply:
    """Ask the chat model for reply number ``reply``.

    ``early``: it is not certain that the user has finished; nothing that cannot be
    undone may be done for the reply before ``AdoptReply``.
    """

    reply: int
    messages: tuple[Message, ...]
    chat: ChatSettings
    voice: VoiceSettings
    preemptive: bool = False
    voiced: bool = True
    """False: the reply is text only; nothing of it is synthesised."""
    scripted: bool = False
    """True: the text is known already; no chat model is asked."""
    awaits_tools: bool = False
    """True: the client's tools are awaited; the chat model is first asked by
    ``ContinueReply``.
    """


@dataclass(frozen=True, slots=True)
class AdoptReply:
    """The user had finished: the reply that was started early becomes the answer."""

    reply: int


@dataclass(frozen=True, slots=True)
class ContinueReply:
    """The client's tools have answered: ask the chat model to continue the reply."""

    reply: int
    messages: tuple[Message, ...]
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Speak:
    """Synthesise one sentence of the reply. Sentences are numbered from 0, without
    gaps, and come in order.
    """

    reply: int
    sentence: int
    text: str


@dataclass(frozen=True, slots=True)
class FinishSpeech:
    """No more sentences follow: flush the encoder after the last one."""

    reply: int


@dataclass(frozen=True, slots=True)
class StopReply:
    """Cancel everything that is still being made for the reply, and remove its frames
    from the outbox.
    """

    reply: int


@dataclass(frozen=True, slots=True)
class Close:
    """Send the frames in the outbox, then close the connection, because of
    ``ended``.
    """

    ended: Ended


class StaleKind(Enum):
    """What the event belonged to."""

    REPLY = "reply"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class StaleDropped:
    """An event was dropped, because its reply or stream was over."""

    kind: StaleKind


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn is over. Times are milliseconds since the end of the user's turn; None:
    the turn did not reach that stage.
    """

    outcome: Outcome
    transcript_ms: int | None
    first_text_ms: int | None
    first_audio_ms: int | None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session ended while its connection was open."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class PreemptiveReplyEnded:
    """A preemptive reply became the answer (``used``), or was dropped."""

    used: bool
    saved_ms: int
    """How much earlier it was started than without preemption."""


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool call ended. ``tool`` is a configured tool's name; empty: the client
    carried out the call.
    """

    tool: str
    outcome: ToolOutcome
    took_ms: int


@dataclass(frozen=True, slots=True)
class TurnTimed:
    """The first audio of a reply was handed to the socket after these latencies."""

    breakdown: LatencyBreakdown


SessionMetric: TypeAlias = (
    PreemptiveReplyEnded | StaleDropped | TurnEnded | TurnTimed | SessionClosed | ToolEnded
)


@dataclass(frozen=True, slots=True)
class RecordMetric:
    """Pass a metric event to metrics and tracing. It holds no text and no audio."""

    metric: SessionMetric


Effect: TypeAlias = (
    Send
    | OpenRecognition
    | RouteAudio
    | FinishRecognition
    | DropRecognition
    | PrepareReply
    | StartReply
    | AdoptReply
    | ContinueReply
    | Speak
    | FinishSpeech
    | StopReply
    | Close
    | RecordMetric
)
