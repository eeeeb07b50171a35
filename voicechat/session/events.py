"""What happens to a session besides its client's commands, in the past tense.

Audio, recognition, models, synthesisers, the transport, the server and the clock: the
session learns everything from these events and from commands.
"""

from dataclasses import dataclass
from typing import TypeAlias

from voicechat.errors import Fault, ProviderError
from voicechat.session.commands import AnyCommand
from voicechat.session.types import Source, ToolCall, ToolExchange, Transcript, Usage


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is established and admitted."""


@dataclass(frozen=True, slots=True)
class AudioReceived:
    """One frame of the client's audio, as it arrived. The runtime's audio input takes
    it: it never reaches a machine.
    """

    payload: bytes


@dataclass(frozen=True, slots=True)
class AudioStarted:
    """Audio arrived while the route is ``AWAIT``: the effects of this event say where
    it goes.
    """


@dataclass(frozen=True, slots=True)
class AudioArrived:
    """Audio has arrived since the last event, the newest at ``at_ms``: the client is
    alive.

    Posted before anything else that the client does; see also ``Ticked``.
    """

    at_ms: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The session was restored from a snapshot, and its client is there again. It comes
    before any other event.
    """

    speak_on: bool
    """Whether the reply that was interrupted is spoken on; False: it is dropped."""
    heard_ms: int | None = None
    """How much of that reply's audio the client has played; None: it does not say."""
    has_all: bool = False
    """Whether the client has received everything that was sent up to the snapshot."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone: nothing can be sent any more."""


# --- recognition ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Base of a recogniser stream's events; they are stale once the stream is over."""

    stream: int


@dataclass(frozen=True, slots=True)
class Transcribed(StreamEvent):
    """The recogniser of ``stream`` returned a result; its times are on the connection's
    time line.
    """

    transcript: Transcript


@dataclass(frozen=True, slots=True)
class RecognitionEnded(StreamEvent):
    """``stream`` has given its last result."""


@dataclass(frozen=True, slots=True)
class RecognitionFailed(StreamEvent):
    """No more results of ``stream`` follow."""

    fault: Fault
    message: str
    retryable: bool = False
    """True: a new stream may succeed with the same audio."""
    others_left: bool = False
    """True: some recogniser has not failed on this audio yet, and a new stream uses
    it.
    """


@dataclass(frozen=True, slots=True)
class RecognitionDelayed(StreamEvent):
    """The recogniser of ``stream`` may need ``by_ms`` longer for its last result,
    because it may have to load its model.
    """

    by_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Hands-free: the user began to speak at ``at_ms`` of the connection's audio,
    ``ago_ms`` ago.
    """

    at_ms: int
    ago_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Hands-free: the user fell silent at ``at_ms`` of the connection's audio,
    ``ago_ms`` ago.
    """

    at_ms: int
    ago_ms: int


@dataclass(frozen=True, slots=True)
class DetectionDelayed:
    """Hands-free: voice detection has not judged the last ``by_ms`` of the audio yet,
    so it is unknown whether the user speaks in them.
    """

    by_ms: int


@dataclass(frozen=True, slots=True)
class TurnJudged:
    """Hands-free: judged by its sound, the turn is complete with ``probability``, 0 to
    1, if nothing follows the last stop.
    """

    probability: float


# --- from the model and the synthesiser of a reply ------------------------------------


@dataclass(frozen=True, slots=True)
class ReplyEvent:
    """Base of the events of a reply; they are stale once that reply is over."""

    reply: int


@dataclass(frozen=True, slots=True)
class ReplyTextArrived(ReplyEvent):
    """The chat model returned the next piece of its reply."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled(ReplyEvent):
    """The chat model returned the next piece of a tool call."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolsUsed(ReplyEvent):
    """The chat model has called tools on the server; the reply continues."""

    exchange: ToolExchange


@dataclass(frozen=True, slots=True)
class ReplyCited(ReplyEvent):
    """The reply cites sources, directly behind its text so far."""

    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class ReplyTextEnded(ReplyEvent):
    """The chat model has finished."""

    finish_reason: str = "stop"
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class SpeechSynthesized(ReplyEvent):
    """The next encoded piece of the reply's audio, in order over the whole reply.

    ``packets`` may be empty while an encoder still buffers samples. ``end_ms`` is the
    media position after it: milliseconds of speech since the start of the reply.
    """

    sentence: int
    packets: tuple[bytes, ...]
    end_ms: int


@dataclass(frozen=True, slots=True)
class SentenceSynthesized(ReplyEvent):
    """All audio of ``sentence`` has been synthesised."""

    sentence: int


@dataclass(frozen=True, slots=True)
class SpeechEnded(ReplyEvent):
    """All audio of the reply has been synthesised, including the encoder's tail."""


@dataclass(frozen=True, slots=True)
class ReplyFailed(ReplyEvent):
    """The model or the synthesiser failed; nothing more of the reply follows."""

    fault: Fault
    message: str
    cause: ProviderError | None = None
    """The exception of the service, for REST requests; a conversation gets
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
    """The client does not read: too many bytes wait for it, or it has not read for too
    long.
    """

    message: str


@dataclass(frozen=True, slots=True)
class DrainAnnounced:
    """The server stops: ``DrainRequested`` follows in ``left_ms``."""

    left_ms: int


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The server stops: finish the turn in progress until ``deadline_ms`` (session
    time), then close.
    """

    deadline_ms: int


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """Whether the server is ``short`` of time: then the session starts no work that may
    be in vain. Initially it is not.
    """

    short: bool


@dataclass(frozen=True, slots=True)
class AccessEnded:
    """The client's access ended: its key was revoked, or its quota is used up."""

    fault: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Faulted:
    """A bug: code of this server failed in a task of this session. The session ends,
    the server continues.
    """


@dataclass(frozen=True, slots=True)
class Ticked:
    """The time of the session's ``deadline_ms`` has come."""

    audio_ms: int | None = None
    """When the newest audio arrived, if any has arrived since the last event. It is
    part of this event, without an ``AudioArrived``, because paced replies tick all the
    time.
    """


EndEvent: TypeAlias = (
    Disconnected | WriteStalled | AccessEnded | Faulted | DrainAnnounced | DrainRequested
)
"""The events that end a session, at once or as soon as its turn is over, or announce
its end.
"""

Event: TypeAlias = (
    AnyCommand
    | Opened
    | Restored
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
    | ReplyCited
    | ReplyTextEnded
    | SpeechSynthesized
    | SentenceSynthesized
    | SpeechEnded
    | ReplyFailed
    | AudioSent
    | WriteStalled
    | DrainAnnounced
    | DrainRequested
    | PressureChanged
    | AccessEnded
    | Faulted
    | Ticked
)
