"""What is to be done about an event, in the imperative; and the messages that a client is sent.

Performing an effect never waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from voicechat.errors import Status
from voicechat.session.vocabulary import (
    ChatSettings,
    InputSettings,
    Message,
    ToolCall,
    ToolOutcome,
    Transcript,
    TurnDetection,
    VoiceSettings,
)
from voicechat.session.waterfall import Waterfall

# --- messages: what a client is told, before a dialect gives them their wire form --------------------------------


class Request(Enum):
    """The requests that earn exactly one answer each; named by the answer's event type."""

    OPEN = "chat.created"
    UPDATE = "chat.updated"
    COMPLETE = "input_audio_buffer.completed"
    CLEAR = "input_audio_buffer.cleared"
    FORGET = "conversation.cleared"
    CANCEL = "conversation.chat.canceled"
    PING = "pong"


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request; or, with a ``reason``, what the server did by itself as if it had been requested."""

    request: Request
    status: Status = Status.OK
    message: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A recognition result."""

    transcript: Transcript


@dataclass(frozen=True, slots=True)
class SpeechNoticed:
    """Hands-free: the user began to speak, or fell silent (``started`` false), at ``at_ms`` of the audio."""

    started: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A piece of the reply's text. ``first`` marks the reply's first; ``begun_ms`` is when the reply began."""

    reply: int
    text: str
    first: bool
    begun_ms: int


@dataclass(frozen=True, slots=True)
class ReplyToolCall:
    """A piece of a tool call that the client is to carry out."""

    reply: int
    call: ToolCall
    first: bool
    begun_ms: int


@dataclass(frozen=True, slots=True)
class ReplyTextFinished:
    """The reply's text is complete."""

    reply: int
    finish_reason: str
    first: bool
    begun_ms: int


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """A piece of the reply's encoded audio; ``end_ms`` is the media position after it."""

    reply: int
    payload: bytes
    end_ms: int


@dataclass(frozen=True, slots=True)
class ReplyAudioFinished:
    """The last message of a reply that came to its natural end."""

    reply: int
    characters: int
    """Characters spoken; a Han character counts 2, any other 1."""


@dataclass(frozen=True, slots=True)
class TurnCompleted:
    """The turn is over, however it ended; the session listens again."""


@dataclass(frozen=True, slots=True)
class LatencyMeasured:
    """For a client that asked for it: where the time went until the reply's first audio left."""

    reply: int
    waterfall: Waterfall


@dataclass(frozen=True, slots=True)
class ErrorReported:
    """Anything wrong that is not the answer to a request."""

    status: Status
    message: str


ClientMessage: TypeAlias = (
    Answered
    | Recognised
    | SpeechNoticed
    | ReplyText
    | ReplyToolCall
    | ReplyTextFinished
    | ReplyAudio
    | ReplyAudioFinished
    | TurnCompleted
    | LatencyMeasured
    | ErrorReported
)

# --- effects -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Put a message into the outbox."""

    message: ClientMessage


@dataclass(frozen=True, slots=True)
class OpenRecognition:
    """Start recogniser ``stream``.

    With ``replay_of``, feed it first what that stream heard since its last final result; with ``from_ms``, the audio of
    the connection from there on, as far as it is still there, and then all that comes by the route ``LISTEN``.
    """

    stream: int
    settings: InputSettings
    replay_of: int | None = None
    from_ms: int | None = None


class Route(Enum):
    """Where the client's audio goes."""

    AWAIT = "await"
    """Nowhere yet: the next frame is told as ``AudioStarted``, and then goes where that event's effects say. So it is
    with a new connection."""
    RECOGNISE = "recognise"
    """To one recogniser stream."""
    LISTEN = "listen"
    """Hands-free: to voice detection, and to the recogniser streams that were opened at a time of the audio."""
    SKIP = "skip"
    """To nobody: it only takes its time on the connection's time line."""
    DROP = "drop"
    """It is not even decoded: the session is over."""


@dataclass(frozen=True, slots=True)
class RouteAudio:
    """From now on the client's audio goes there. Performed once when it changes, not for every frame."""

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

    ``early``: it is not certain that the user has finished; nothing may be done for it that cannot be undone before
    ``AdoptReply``.
    """

    reply: int
    messages: tuple[Message, ...]
    chat: ChatSettings
    voice: VoiceSettings
    early: bool = False


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
    """Synthesise one sentence of the reply; sentences are numbered from 0, without gaps, in order."""

    reply: int
    sentence: int
    text: str


@dataclass(frozen=True, slots=True)
class FinishSpeech:
    """No more sentences will come: flush the encoder after the last one."""

    reply: int


@dataclass(frozen=True, slots=True)
class StopReply:
    """Cancel everything of the reply, if it is still being made, and empty the outbox of it."""

    reply: int


@dataclass(frozen=True, slots=True)
class Close:
    """Send what is in the outbox, then close the connection."""

    code: int
    reason: str = ""


class LateKind(Enum):
    """What arrived after its reply or stream was over."""

    REPLY = "reply"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class LateDropped:
    """Fact: something of an older reply or stream arrived and was dropped."""

    kind: LateKind


class Outcome(Enum):
    """How a turn ended."""

    SPOKEN = "spoken"
    EMPTY = "empty"
    """Nothing was understood."""
    UNANSWERED = "unanswered"
    """The client answers by itself, or later: ``create_response`` is false."""
    CANCELED = "canceled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """Fact: a turn is over. Times are milliseconds after the user's ``complete``; None: not reached."""

    outcome: Outcome
    transcript_ms: int | None
    first_text_ms: int | None
    first_audio_ms: int | None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """Fact: the server closed a session, with this WebSocket code."""

    code: int


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """Fact: a client was not admitted."""

    status: Status


@dataclass(frozen=True, slots=True)
class EarlyReply:
    """Fact: a reply that was begun before the turn had surely ended was ``used``, or dropped."""

    used: bool
    saved_ms: int
    """How much earlier than otherwise it was begun."""


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """Fact: a tool call ended. ``tool`` is a configured tool's name; empty: the client carried it out, or did not."""

    tool: str
    outcome: ToolOutcome
    took_ms: int


@dataclass(frozen=True, slots=True)
class TurnTimed:
    """Fact: the first audio of a reply has just left, after this."""

    waterfall: Waterfall


Fact: TypeAlias = EarlyReply | LateDropped | TurnEnded | TurnTimed | SessionClosed | SessionRefused | ToolEnded


@dataclass(frozen=True, slots=True)
class Observe:
    """Tell the observers (metrics, log) a fact. Facts hold no text and no audio."""

    fact: Fact


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
    | Observe
)
