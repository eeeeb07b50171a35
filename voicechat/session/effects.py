"""What the runtime does about an event, in the imperative. Performing an effect never
waits.
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

    With ``replay_of``, feed it first what that stream heard since its last final
    result; with ``from_ms``, the audio of the connection from there on, as far as it is
    still there, and then all that comes by the route ``LISTEN``.
    """

    stream: int
    settings: InputSettings
    replay_of: int | None = None
    from_ms: int | None = None


class Route(Enum):
    """Where the client's audio goes."""

    AWAIT = "await"
    """Nowhere yet: the next frame is reported as ``AudioStarted``, and goes where that
    event's effects say. A new connection has this route.
    """
    RECOGNISE = "recognise"
    """To one recogniser stream."""
    LISTEN = "listen"
    """Hands-free: to voice detection, and to the recogniser streams that were opened at
    a time of the audio.
    """
    SKIP = "skip"
    """To no listener: it only takes its time on the connection's time line."""
    DROP = "drop"
    """It is not even decoded: the session is over."""


@dataclass(frozen=True, slots=True)
class RouteAudio:
    """From now on the client's audio goes there. Performed once when it changes, not
    for every frame.
    """

    route: Route
    settings: InputSettings
    """How the audio is to be read. When it changes, what comes is decoded anew."""
    stream: int = 0
    """With ``RECOGNISE``."""
    detection: TurnDetection | None = None
    """With ``LISTEN``."""


@dataclass(frozen=True, slots=True)
class FinishRecognition:
    """No more audio for ``stream``: ask for its last result."""

    stream: int


@dataclass(frozen=True, slots=True)
class DropRecognition:
    """Cancel ``stream`` and forget its audio."""

    stream: int


@dataclass(frozen=True, slots=True)
class StartReply:
    """Ask the chat model for reply number ``reply``.

    ``early``: it is not certain that the user has finished; nothing may be done for it
    that cannot be undone before ``AdoptReply``.
    """

    reply: int
    messages: tuple[Message, ...]
    chat: ChatSettings
    voice: VoiceSettings
    preemptive: bool = False
    voiced: bool = True
    """False: the reply is text, and nothing of it is synthesised."""
    scripted: bool = False
    """True: its text is known already, and no chat model is asked."""


@dataclass(frozen=True, slots=True)
class AdoptReply:
    """The user had finished: the reply that was begun early is the answer."""

    reply: int


@dataclass(frozen=True, slots=True)
class ContinueReply:
    """The client's tools have answered: ask the chat model how the reply goes on."""

    reply: int
    messages: tuple[Message, ...]
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Speak:
    """Synthesise one sentence of the reply; sentences are numbered from 0, without
    gaps, in order.
    """

    reply: int
    sentence: int
    text: str


@dataclass(frozen=True, slots=True)
class FinishSpeech:
    """No more sentences will come: flush the encoder after the last one."""

    reply: int


@dataclass(frozen=True, slots=True)
class StopReply:
    """Cancel everything of the reply, if it is still being made, and empty the outbox
    of it.
    """

    reply: int


@dataclass(frozen=True, slots=True)
class Close:
    """Send what is in the outbox, then close the connection, because of ``ended``."""

    ended: Ended


class StaleKind(Enum):
    """What arrived after its reply or stream was over."""

    REPLY = "reply"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class StaleDropped:
    """An event of a reply or stream that was over arrived and was dropped."""

    kind: StaleKind


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn is over. Times are milliseconds after the turn was committed; None: the
    stage was not reached.
    """

    outcome: Outcome
    transcript_ms: int | None
    first_text_ms: int | None
    first_audio_ms: int | None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The kernel ended a session whose connection was still open."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class PreemptiveReplyEnded:
    """A preemptive reply was ``used`` as the answer, or was dropped."""

    used: bool
    saved_ms: int
    """How much earlier than otherwise it was begun."""


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool call ended. ``tool`` is a configured tool's name; empty: the call was the
    client's to carry out.
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
    | StartReply
    | AdoptReply
    | ContinueReply
    | Speak
    | FinishSpeech
    | StopReply
    | Close
    | RecordMetric
)
