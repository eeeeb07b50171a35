"""What a client may ask of a session, independent of any protocol.

A dialect translates what its client sends into commands. Each carries a ``cause`` of
the dialect's own, which ``Done`` or ``Rejected`` returns; the session does not read it.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from voicechat.session.types import Message, ReplyOverrides, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Base of all commands."""

    cause: object = None


@dataclass(frozen=True, slots=True)
class Alive(Command):
    """A sign of life of the client. Other commands do not count as one."""


@dataclass(frozen=True, slots=True)
class Begin(Command):
    """The client is ready to hear: an agent that speaks first begins now. Only the
    first one has an effect.
    """


@dataclass(frozen=True, slots=True)
class Configure(Command):
    """Set all settings. Allowed at any time.

    Settings of the input apply to audio that comes from now on, all others from the
    next reply on.
    """

    settings: Settings


@dataclass(frozen=True, slots=True)
class CommitTurn(Command):
    """The user's turn is over. Answered by ``TurnCommitted``, or ``Rejected`` while a
    turn is in progress.

    With ``text`` the turn was typed: recognised words stay with the next turn. If
    ``respond`` is false, the words are added to the history and not answered; this is
    also possible during a reply.
    """

    text: str | None = None
    respond: bool = True


@dataclass(frozen=True, slots=True)
class Respond(Command):
    """Answer the conversation so far. Answered by ``ReplyBegun``, or ``Rejected`` while
    a reply is in progress.

    While the words of a committed turn are awaited, the reply begins once they are
    known.
    """

    overrides: ReplyOverrides = field(default_factory=ReplyOverrides)


@dataclass(frozen=True, slots=True)
class ClearInput(Command):
    """Discard the audio and the words of the next turn."""


@dataclass(frozen=True, slots=True)
class ClearHistory(Command):
    """Clear the history. A turn in progress continues and is not added to it."""


@dataclass(frozen=True, slots=True)
class AddItem(Command):
    """Add a message to the history. ``Rejected`` when the id is taken or ``after`` does
    not exist.
    """

    message: Message
    id: str = ""
    """The item's id; empty: the session makes one."""
    after: str | None = None
    """The id of the item before it; empty: the item becomes the first; None: the
    last.
    """


@dataclass(frozen=True, slots=True)
class DeleteItem(Command):
    """Delete an item of the history. ``Rejected`` when no item has this id."""

    id: str


@dataclass(frozen=True, slots=True)
class TruncateReply(Command):
    """The user heard only the first ``heard_ms`` of the audio of reply number
    ``reply``, and hears no more of it.

    The history keeps the text of that part; ``ReplyCut`` reports it. ``Rejected`` when
    the reply has no audio, is not in the history (any more, or while it is in
    progress), or is shorter than ``heard_ms``.
    """

    reply: int
    heard_ms: int


@dataclass(frozen=True, slots=True)
class Cancel(Command):
    """Stop the turn in progress and the playback of the last reply; without either, do
    nothing.

    With ``reply`` stop only that reply, if it is in progress.
    """

    reply: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerTool(Command):
    """The client has carried out a tool call."""

    call_id: str
    content: str


@dataclass(frozen=True, slots=True)
class Played(Command):
    """The client has played a reply up to ``played_ms`` of its audio."""

    reply: int
    played_ms: int


@dataclass(frozen=True, slots=True)
class PressKey(Command):
    """The user pressed a key of a keypad: 0 to 9, ``*``, ``#`` or A to D; others are
    ignored.

    The first key of an entry stops the reply, if replies may be interrupted. The
    complete entry becomes a turn of the user (``Agent.keypad``).
    """

    key: str


@dataclass(frozen=True, slots=True)
class HangUp(Command):
    """The user has hung up: end now, even during a turn."""


@dataclass(frozen=True, slots=True)
class Finish(Command):
    """The client sends nothing more: send the pending results, then end."""


@dataclass(frozen=True, slots=True)
class Leave(Command):
    """The dialect ends the session, with ``message`` as the reason. ``Ended`` returns
    the cause.
    """

    message: str = ""


AnyCommand: TypeAlias = (
    Alive
    | Begin
    | Configure
    | CommitTurn
    | Respond
    | ClearInput
    | ClearHistory
    | AddItem
    | DeleteItem
    | TruncateReply
    | Cancel
    | AnswerTool
    | Played
    | PressKey
    | HangUp
    | Finish
    | Leave
)
