"""What happens to a session besides its client's commands, in the past tense.

Audio, recognition, the makers of replies, the transport, the server and the clock: with
the commands, everything the kernel ever learns arrives as one of these.
"""

from dataclasses import dataclass
from typing import TypeAlias

from voicechat.errors import Fault, ProviderError
from voicechat.session.commands import AnyCommand
from voicechat.session.types import ToolCall, ToolExchange, Transcript, Usage


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is established and admitted."""


@dataclass(frozen=True, slots=True)
class AudioReceived:
    """One frame of the client's audio, as it came. The runtime's audio input takes it:
    no machine is given one.
    """

    payload: bytes


@dataclass(frozen=True, slots=True)
class AudioStarted:
    """Audio comes while the route is ``AWAIT``: it goes where the effects of this event
    say.
    """


@dataclass(frozen=True, slots=True)
class AudioArrived:
    """Audio has come since the last event, the newest at ``at_ms``: the client is
    there.

    Posted before anything else that the client does; see also ``Ticked``.
    """

    at_ms: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone: nothing can be sent any more."""


# --- recognition ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Base of a recogniser stream's events: stale once the stream is over."""

    stream: int


@dataclass(frozen=True, slots=True)
class Transcribed(StreamEvent):
    """The recogniser of ``stream`` understood something; times are on the connection's
    time line.
    """

    transcript: Transcript


@dataclass(frozen=True, slots=True)
class RecognitionEnded(StreamEvent):
    """``stream`` has given its last result."""


@dataclass(frozen=True, slots=True)
class RecognitionFailed(StreamEvent):
    """``stream`` will give no more results."""

    fault: Fault
    message: str
    retryable: bool = False
    """True: the same audio may succeed on a new stream."""
    others_left: bool = False
    """True: a new stream is heard by a recogniser that has not failed on this audio."""


@dataclass(frozen=True, slots=True)
class RecognitionDelayed(StreamEvent):
    """The recogniser of ``stream`` may take ``by_ms`` longer to its last result: it may
    have to load its model.
    """

    by_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Hands-free: the user has begun to speak at ``at_ms`` of the connection's audio,
    ``ago_ms`` ago.
    """

    at_ms: int
    ago_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Hands-free: the user has fallen silent at ``at_ms`` of the connection's audio,
    ``ago_ms`` ago.
    """

    at_ms: int
    ago_ms: int


@dataclass(frozen=True, slots=True)
class DetectionDelayed:
    """Hands-free: of the audio that has come, the last ``by_ms`` are not judged yet. It
    is not known whether the user speaks in them.
    """

    by_ms: int


@dataclass(frozen=True, slots=True)
class TurnJudged:
    """Hands-free: by its sound, the turn is complete with ``probability``, 0 to 1, if
    nothing follows the last stop.
    """

    probability: float


# --- from the makers of a reply: model and synthesiser --------------------------------


@dataclass(frozen=True, slots=True)
class ReplyEvent:
    """Base of what is generated for a reply: stale once that reply is over."""

    reply: int


@dataclass(frozen=True, slots=True)
class ReplyTextArrived(ReplyEvent):
    """The chat model said the next piece of its reply."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled(ReplyEvent):
    """The chat model said the next piece of a tool call."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolsUsed(ReplyEvent):
    """The chat model had tools carried out on the server; the reply goes on."""

    exchange: ToolExchange


@dataclass(frozen=True, slots=True)
class ReplyTextEnded(ReplyEvent):
    """The chat model has finished."""

    finish_reason: str = "stop"
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class SpeechSynthesized(ReplyEvent):
    """The next encoded piece of the reply's audio, in order over the whole reply.

    ``packets`` may be none while an encoder still holds samples back. ``end_ms`` is the
    media position after it: milliseconds of speech since the start of the reply.
    """

    sentence: int
    packets: tuple[bytes, ...]
    end_ms: int


@dataclass(frozen=True, slots=True)
class SentenceSynthesized(ReplyEvent):
    """All audio of ``sentence`` has been made."""

    sentence: int


@dataclass(frozen=True, slots=True)
class SpeechEnded(ReplyEvent):
    """All audio of the reply has been made, the encoder's tail included."""


@dataclass(frozen=True, slots=True)
class ReplyFailed(ReplyEvent):
    """The model or the synthesiser failed; nothing more of the reply will come."""

    fault: Fault
    message: str
    cause: ProviderError | None = None
    """What the service raised, for REST requests; a conversation gets
    ``message``.
    """


# --- from the transport, the server and the clock -------------------------------------


@dataclass(frozen=True, slots=True)
class AudioSent:
    """Audio of the reply up to ``end_ms`` has been handed to the socket."""

    reply: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class WriteStalled:
    """The client does not read: its backlog or its patience is exhausted."""

    message: str


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The server stops: finish the turn in progress until ``deadline_ms`` (session
    time), then close.
    """

    deadline_ms: int


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """Whether the server is ``short`` of time: then nothing is begun that may be in
    vain. At first it is not.
    """

    short: bool


@dataclass(frozen=True, slots=True)
class AccessEnded:
    """The client may no longer be served: its key was revoked, or its quota is used
    up.
    """

    fault: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Faulted:
    """Our own code failed in a task of this session: a bug. The session ends, the
    server goes on.
    """


@dataclass(frozen=True, slots=True)
class Ticked:
    """The deadline that the session asked for has come."""

    audio_ms: int | None = None
    """When the newest audio came, if any has come since the last event. Part of this
    event and no ``AudioArrived`` of its own, because paced replies tick all the time.
    """


EndEvent: TypeAlias = Disconnected | WriteStalled | AccessEnded | Faulted | DrainRequested
"""What ends a session, at once or as soon as its turn is over."""

Event: TypeAlias = (
    AnyCommand
    | Opened
    | AudioStarted
    | AudioArrived
    | Disconnected
    | Transcribed
    | RecognitionEnded
    | RecognitionFailed
    | RecognitionDelayed
    | SpeechStarted
    | SpeechStopped
    | DetectionDelayed
    | TurnJudged
    | ReplyTextArrived
    | ToolCalled
    | ToolsUsed
    | ReplyTextEnded
    | SpeechSynthesized
    | SentenceSynthesized
    | SpeechEnded
    | ReplyFailed
    | AudioSent
    | WriteStalled
    | DrainRequested
    | PressureChanged
    | AccessEnded
    | Faulted
    | Ticked
)
