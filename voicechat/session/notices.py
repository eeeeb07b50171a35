"""What a session reports to its client's dialect, in the terms of no protocol.

``Done`` and ``Rejected`` answer commands; everything else happens by itself or because
of a command.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from voicechat.errors import Fault
from voicechat.session.latency_breakdown import LatencyBreakdown
from voicechat.session.types import Item, ToolCall, ToolExchange, Transcript, Usage


class Why(Enum):
    """Why a command was not carried out."""

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
    """The reply came to its natural end."""
    EMPTY = "empty"
    """Nothing was understood."""
    UNANSWERED = "unanswered"
    """The words are remembered, and no reply follows now."""
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
    """For people: what was asked for and why it cannot be."""


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The user's turn is over: by a command, whose ``cause`` this is, or because it was
    detected.
    """

    cause: object
    detected: bool = False
    item_id: str = ""
    """The place in the history that its words get once they are known (``UserSaid``),
    or that is given up (``NothingSaid``).
    """


@dataclass(frozen=True, slots=True)
class UserSaid:
    """The words of a committed turn are known, and remembered as ``item``."""

    item: Item


@dataclass(frozen=True, slots=True)
class NothingSaid:
    """No words of a committed turn are remembered; its place in the history is given
    up.
    """

    item_id: str
    message: str = ""
    """Why recognition failed; empty: nothing was understood, or the turn was stopped
    before.
    """


@dataclass(frozen=True, slots=True)
class TurnCompleted:
    """The turn is over, however it ended; the session listens again."""

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
    """Hands-free: the user's voice stopped the reply; what the client has not played of
    it is void.
    """


@dataclass(frozen=True, slots=True)
class ReplyNotice:
    """Base of a reply's notices: void once that reply is stopped."""

    reply: int


@dataclass(frozen=True, slots=True)
class ReplyBegun(ReplyNotice):
    """A reply has begun: at ``begun_ms`` of the session, which is earlier than now if
    it was begun early.
    """

    begun_ms: int
    cause: object = None
    """Of the ``Respond`` that asked for it."""


@dataclass(frozen=True, slots=True)
class ReplyText(ReplyNotice):
    """A piece of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyToolCall(ReplyNotice):
    """A piece of a tool call that the client is to carry out."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ReplyToolsUsed(ReplyNotice):
    """The server itself carried out tool calls for the reply, which goes on."""

    exchange: ToolExchange


@dataclass(frozen=True, slots=True)
class ReplyTextFinished(ReplyNotice):
    """An answer of the model is complete. When it waits for tools, another one
    follows.
    """

    finish_reason: str


@dataclass(frozen=True, slots=True)
class SentenceBegun(ReplyNotice):
    """The audio that follows says ``text``: one sentence as it is spoken."""

    sentence: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyAudio(ReplyNotice):
    """A piece of the reply's encoded audio: ``packets`` of its codec, or one for a
    plain stream.

    ``end_ms`` is the media position after it, ``sentence`` the sentence that it belongs
    to.
    """

    packets: tuple[bytes, ...]
    end_ms: int
    sentence: int

    @property
    def payload(self) -> bytes:
        """The packets joined, for codecs whose stream needs no borders."""
        return self.packets[0] if len(self.packets) == 1 else b"".join(self.packets)


@dataclass(frozen=True, slots=True)
class ReplyAudioFinished(ReplyNotice):
    """All audio of the reply has been sent. ``spoken`` are its sentences, as they were
    to be spoken.
    """

    spoken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplyCut:
    """A reply was cut short: of its text the listener heard ``heard``, which is what is
    remembered.
    """

    reply: int
    heard: str
    items: tuple[Item, ...] = ()
    """What is remembered of it now; see ``ReplyEnded``."""


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """Nothing more of the reply will come."""

    reply: int
    outcome: Outcome
    items: tuple[Item, ...] = ()
    """What is remembered of it: its text and its tools. A later ``ReplyCut`` may report
    that less was heard.
    """
    usage: Usage | None = None
    """None: the model reported none."""
    fault: Fault | None = None
    message: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class LatencyMeasured:
    """Where the time went until the reply's first audio left."""

    reply: int
    breakdown: LatencyBreakdown


@dataclass(frozen=True, slots=True)
class Failed:
    """A service failed, or a limit was reached. The session goes on."""

    fault: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; the last notice."""

    ending: Ending
    message: str = ""
    fault: Fault | None = None
    cause: object = None
    """Of the ``Leave`` that ended it."""
    transfer_to: str = ""
    """With ``TRANSFERRED``: the number or address that the user is to be connected
    with.
    """


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
    | ReplyTextFinished
    | SentenceBegun
    | ReplyAudio
    | ReplyAudioFinished
    | ReplyCut
    | ReplyEnded
    | LatencyMeasured
    | Failed
    | Ended
)
