"""What a session reports to its client's dialect, independent of any protocol.

``Done`` and ``Rejected`` answer commands; all other notices report events or the
effects of a command.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from voicechat.errors import Fault
from voicechat.session.latency_breakdown import LatencyBreakdown
from voicechat.session.types import Item, Source, ToolCall, ToolExchange, Transcript, Usage


class Why(Enum):
    """Why a command was rejected."""

    BUSY = "a turn is still in progress"
    NO_CALL = "no call awaits an answer"
    OTHER_CALL = "it is not one of the calls that await an answer"
    NO_ITEM = "there is no such item"
    ITEM_EXISTS = "an item of this id exists already"
    NO_REPLY = "there is no such reply"
    TOO_LONG = "the reply is not that long"
    TOO_MANY = "there are too many already"


class Ending(Enum):
    """Why a session ended."""

    FINISHED = "the client has finished"
    ABSENT = "the client was silent for too long"
    NOT_READING = "the client does not read"
    ACCESS = "the client may no longer be served"
    VIOLATION = "the dialect gave its client up"
    RESTART = "the server restarts"
    FAULT = "a fault of the server"
    AUDIO = "the audio cannot be recognised"
    GOODBYE = "the agent has ended the conversation"
    TRANSFERRED = "the agent has passed the conversation on"


class Outcome(Enum):
    """How a turn or a reply ended."""

    SPOKEN = "spoken"
    """The reply was completed."""
    EMPTY = "empty"
    """No words were recognised."""
    UNANSWERED = "unanswered"
    """The words were added to the history, and no reply follows now."""
    CANCELED = "canceled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Done:
    """A command was carried out."""

    cause: object


@dataclass(frozen=True, slots=True)
class Rejected:
    """A command was not carried out, and nothing has changed."""

    cause: object
    why: Why
    message: str
    """For people: what the client asked for, and why it is not possible."""


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The user's turn is over: by the command with this ``cause``, or because its end
    was detected.
    """

    cause: object
    detected: bool = False
    item_id: str = ""
    """The reserved place in the history, which gets the words once they are known
    (``UserSaid``), or is deleted (``NothingSaid``).
    """


@dataclass(frozen=True, slots=True)
class UserSaid:
    """The words of a committed turn are known, and stored as ``item``."""

    item: Item


@dataclass(frozen=True, slots=True)
class NothingSaid:
    """A committed turn has no words in the history; its place is deleted."""

    item_id: str
    message: str = ""
    """Why recognition failed; empty: no words were recognised, or the turn was stopped
    before.
    """


@dataclass(frozen=True, slots=True)
class TurnCompleted:
    """The turn is over, whatever its outcome; the session listens again."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Recognised:
    """A recognition result."""

    transcript: Transcript


@dataclass(frozen=True, slots=True)
class SpeechNoticed:
    """Hands-free: the user began to speak, or fell silent (``started`` false), at
    ``at_ms`` of the audio.
    """

    started: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Hands-free: the user's voice stopped the reply; the client must discard the audio
    that it has not played.
    """


@dataclass(frozen=True, slots=True)
class ReplyNotice:
    """Base of a reply's notices: void once that reply is stopped."""

    reply: int


@dataclass(frozen=True, slots=True)
class ReplyBegun(ReplyNotice):
    """A reply has begun, at ``begun_ms`` of the session, which is in the past if it was
    started early.
    """

    begun_ms: int
    cause: object = None
    """The cause of the ``Respond`` that asked for it."""


@dataclass(frozen=True, slots=True)
class ReplyText(ReplyNotice):
    """A piece of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyToolCall(ReplyNotice):
    """A piece of a tool call for the client to carry out."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ReplyToolsUsed(ReplyNotice):
    """The server carried out tool calls for the reply, which continues."""

    exchange: ToolExchange


@dataclass(frozen=True, slots=True)
class ReplySources(ReplyNotice):
    """The reply cites ``sources``, directly behind its text so far. A source that is
    cited again comes again, with the same ``index``.
    """

    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class ReplyTextFinished(ReplyNotice):
    """An answer of the model is complete. If the model waits for tools, another answer
    follows.
    """

    finish_reason: str


@dataclass(frozen=True, slots=True)
class SentenceBegun(ReplyNotice):
    """The audio that follows is ``text``: one sentence as it is spoken."""

    sentence: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyAudio(ReplyNotice):
    """A piece of the reply's encoded audio: ``packets`` of its codec, or a single one
    for a plain stream.

    ``end_ms`` is the media position after it, ``sentence`` the sentence that it belongs
    to.
    """

    packets: tuple[bytes, ...]
    end_ms: int
    sentence: int

    @property
    def payload(self) -> bytes:
        """The packets joined, for codecs whose stream needs no packet borders."""
        return self.packets[0] if len(self.packets) == 1 else b"".join(self.packets)


@dataclass(frozen=True, slots=True)
class ReplyAudioFinished(ReplyNotice):
    """All audio of the reply has been sent. ``spoken`` holds its sentences in spoken
    form.
    """

    spoken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplyCut:
    """A reply was cut short: the listener heard ``heard`` of its text, and the history
    keeps that part.
    """

    reply: int
    heard: str
    items: tuple[Item, ...] = ()
    """The items of the reply in the history now; see ``ReplyEnded``."""


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """Nothing more of the reply follows."""

    reply: int
    outcome: Outcome
    items: tuple[Item, ...] = ()
    """The items of the reply in the history: its text and its tools. A later
    ``ReplyCut`` may report that less was heard.
    """
    usage: Usage | None = None
    """None: the model did not report it."""
    fault: Fault | None = None
    message: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class LatencyMeasured:
    """The stages of the time until the reply's first audio was sent."""

    reply: int
    breakdown: LatencyBreakdown


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The server stops. It ends the session in ``left_ms`` milliseconds, or when the
    turn is over that is in progress then. A client that can continue elsewhere may
    leave before.
    """

    left_ms: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A service failed, or a limit was reached. The session continues."""

    fault: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; the last notice."""

    ending: Ending
    message: str = ""
    fault: Fault | None = None
    cause: object = None
    """The cause of the ``Leave`` that ended it."""
    transfer_to: str = ""
    """For ``TRANSFERRED``: the number or address to connect the user with."""


Notice: TypeAlias = (
    Done
    | Rejected
    | TurnCommitted
    | UserSaid
    | NothingSaid
    | TurnCompleted
    | Recognised
    | SpeechNoticed
    | Interrupted
    | ReplyBegun
    | ReplyText
    | ReplyToolCall
    | ReplyToolsUsed
    | ReplySources
    | ReplyTextFinished
    | SentenceBegun
    | ReplyAudio
    | ReplyAudioFinished
    | ReplyCut
    | ReplyEnded
    | LatencyMeasured
    | GoingAway
    | Failed
    | Ended
)
