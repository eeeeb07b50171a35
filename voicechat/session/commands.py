"""What a client may ask of a session, in the terms of no protocol.

A dialect makes commands of what its client says. Each carries a ``cause`` of the
dialect's own, which comes back with ``Done`` or ``Rejected``: the session does not look
at it.
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
    """The client has shown that it is there. Other commands do not count as a sign of
    life.
    """


@dataclass(frozen=True, slots=True)
class Begin(Command):
    """The client is ready to hear: an agent that speaks first does so now. Only the
    first one counts.
    """


@dataclass(frozen=True, slots=True)
class Configure(Command):
    """Set all settings, at any time.

    What concerns the input holds for audio that comes from now on, the rest from the
    next reply on.
    """

    settings: Settings


@dataclass(frozen=True, slots=True)
class CommitTurn(Command):
    """The user's turn is over. Answered by ``TurnCommitted``, or ``Rejected`` while a
    turn is in progress.

    With ``text`` the user has typed it: what was heard stays with the next turn.
    ``respond`` false: what was said is remembered and not answered; that is possible
    during a reply, too.
    """

    text: str | None = None
    respond: bool = True


@dataclass(frozen=True, slots=True)
class Respond(Command):
    """Answer what is remembered. Answered by ``ReplyBegun``, or ``Rejected`` while a
    reply is in progress.

    While the words of a committed turn are still awaited, the reply begins once they
    are known.
    """

    overrides: ReplyOverrides = field(default_factory=ReplyOverrides)


@dataclass(frozen=True, slots=True)
class ClearInput(Command):
    """Forget the audio and the words gathered for the next turn."""


@dataclass(frozen=True, slots=True)
class ClearHistory(Command):
    """Forget the conversation. A running turn goes on and is not remembered."""


@dataclass(frozen=True, slots=True)
class AddItem(Command):
    """Put a message into the history. ``Rejected`` when the id is taken or ``after`` is
    not there.
    """

    message: Message
    id: str = ""
    """Empty: the session makes one."""
    after: str | None = None
    """The item before it; empty: it becomes the first; None: the last."""


@dataclass(frozen=True, slots=True)
class DeleteItem(Command):
    """Take an item out of the history. ``Rejected`` when no item has this id."""

    id: str


@dataclass(frozen=True, slots=True)
class TruncateReply(Command):
    """Of reply number ``reply`` only the first ``heard_ms`` of its audio were heard.

    It is heard no further. The history keeps the text of that; told by ``ReplyCut``.
    ``Rejected`` when the reply has no audio, is not remembered (any more, or while it
    is being made), or is not that long.
    """

    reply: int
    heard_ms: int


@dataclass(frozen=True, slots=True)
class Cancel(Command):
    """Stop the turn in progress and what is still heard of the last reply; without
    either, do nothing.

    With ``reply`` stop that reply only, if it is in progress.
    """

    reply: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerTool(Command):
    """The client carried out a tool call."""

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

    The first key of an entry silences the reply, if replies may be interrupted. The
    complete entry is a turn of the user (``Agent.keypad``).
    """

    key: str


@dataclass(frozen=True, slots=True)
class HangUp(Command):
    """The user has gone: end now, whatever is in progress."""


@dataclass(frozen=True, slots=True)
class Finish(Command):
    """The client sends nothing more: send pending results, then end."""


@dataclass(frozen=True, slots=True)
class Leave(Command):
    """The dialect gives its client up: end now, for ``message``. The cause comes back
    with ``Ended``.
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
