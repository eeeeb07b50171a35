"""The state of a conversation as a value, from which another process continues it.

It holds what a conversation consists of: settings, history, agent, the words of the
user's turn in progress, and the last replies with how far they were heard. It does not
hold what only a process has: recogniser streams, requests to services, audio.
``Session.snapshot`` makes it and ``Session.restore`` reads it; all times in it are
milliseconds of the session, which continue at ``now_ms``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from voicechat.session.notices import (
    Done,
    NothingSaid,
    Notice,
    ReplyBegun,
    ReplyCut,
    ReplyEnded,
    ReplyTextFinished,
    ReplyToolsUsed,
    SentenceBegun,
    TurnCommitted,
    TurnCompleted,
    UserSaid,
)
from voicechat.session.types import (
    ChatSettings,
    Item,
    Message,
    ReplyOverrides,
    Settings,
    ToolCall,
    Usage,
    VoiceSettings,
)

VERSION = 1
"""Raised with every change that an older version would read wrongly."""

BOUNDARIES = (
    Done,
    TurnCommitted,
    UserSaid,
    NothingSaid,
    TurnCompleted,
    ReplyBegun,
    ReplyTextFinished,
    ReplyToolsUsed,
    SentenceBegun,
    ReplyCut,
    ReplyEnded,
)
"""The notices after which the snapshot is worth saving: something that must not be lost
has changed.
"""


def is_boundary(notice: Notice) -> bool:
    """Whether the snapshot has changed with ``notice`` so that it should be saved."""
    return isinstance(notice, BOUNDARIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceSnapshot:
    """A piece of a reply that is spoken as a whole; see ``Reply``."""

    text: str
    spoken: str
    begin_ms: int
    end_ms: int
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSnapshot:
    """Tool calls of a reply, ``position`` characters into its text."""

    position: int
    calls: tuple[ToolCall, ...]
    answers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplySnapshot:
    """One of the last replies."""

    number: int
    begun_ms: int
    text: str
    text_finished: bool
    voiced: bool
    is_fallback: bool
    spoken: bool
    """Whether all of its audio was released."""
    pieces: tuple[PieceSnapshot, ...]
    made_ms: int
    sent_ms: int
    heard_ms: int
    """The position of the playback clock."""
    playback_stopped: bool
    exchanges: tuple[ExchangeSnapshot, ...]
    rounds: int
    awaits_tools: bool
    """Whether the client has been asked for answers that have not come."""
    usage: Usage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSnapshot:
    """The request of the reply in progress; see ``ReplyRequest``."""

    chat: ChatSettings
    voice: VoiceSettings
    voiced: bool
    input: tuple[Message, ...] | None
    lead_ms: int | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepliesSnapshot:
    """The replies, and the history of which they are a part."""

    items: tuple[Item, ...]
    items_made: int
    replies_made: int
    recent: tuple[ReplySnapshot, ...]
    current: int
    """The number of the reply in progress; 0: none. ``playing`` likewise."""
    playing: int
    request: RequestSnapshot | None
    """The request of the reply in progress."""
    history_cleared: bool
    asked: str
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedSnapshot:
    """A committed turn whose last transcript is awaited."""

    item_id: str
    words: str
    respond: ReplyOverrides | None
    """How it is to be answered; None: not at all."""
    insists: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSnapshot:
    """What the agent has said by itself so far; see ``AgentTurns``."""

    greeting_due: bool
    begun: bool
    prompts: int
    ending: bool
    idle: bool
    said_goodbye: bool
    transfer_to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """A whole conversation."""

    version: int = VERSION
    now_ms: int
    state: str
    """The name of the ``State``."""
    settings: Settings
    replies: RepliesSnapshot
    agent: AgentSnapshot
    words: str
    """The words of the user's turn in progress, as recognised so far."""
    user_speaks: bool
    """Whether a recogniser was listening to a turn of the user: audio that it had not
    transcribed is lost.
    """
    awaited: AwaitedSnapshot | None
    streams: int
    """How many recogniser streams have been opened."""
    last_speech_ms: int
    keys: str
    keys_complete_at_ms: int
