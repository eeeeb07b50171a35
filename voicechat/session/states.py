"""The state table of a conversation.

The law: a session is always in one state, and takes only the steps that its row names.
``TRANSCRIBING`` and ``REPLYING`` together are a turn: it begins when the user has
finished and ends with exactly one ``TurnCompleted``. Waiting for the client's tools is
no state but a part of ``REPLYING``, because what was said before may still be spoken;
``client_tools`` knows which answers are awaited.
"""

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """Where a conversation stands."""

    __hash__ = object.__hash__
    """The table is asked with every event; an enumeration's own hash is computed in
    Python.
    """

    OPENED = auto()
    """Connected; neither audio nor a turn yet."""
    LISTENING = auto()
    """The user's turn: audio is recognised."""
    TRANSCRIBING = auto()
    """The user has finished; the recogniser's last result is awaited."""
    REPLYING = auto()
    """The model and the synthesiser work, or paced audio is leaving."""
    CLOSED = auto()
    """Nothing more happens."""


class Step(Enum):
    """What moves a conversation."""

    __hash__ = object.__hash__

    AUDIO = auto()
    COMMIT = auto()
    """The user has finished."""
    RESPOND = auto()
    """A reply is asked for, without words of the user before it."""
    UNDERSTOOD = auto()
    """The turn's text is known."""
    CANCEL = auto()
    TURN_OVER = auto()
    """Nothing was understood, everything was spoken, or something failed."""


TURN = frozenset({State.TRANSCRIBING, State.REPLYING})

MOVES: Mapping[State, Mapping[Step, State]] = {
    State.OPENED: {
        Step.AUDIO: State.LISTENING,
        Step.COMMIT: State.TRANSCRIBING,
        Step.RESPOND: State.REPLYING,
    },
    State.LISTENING: {
        Step.AUDIO: State.LISTENING,
        Step.COMMIT: State.TRANSCRIBING,
        Step.RESPOND: State.REPLYING,
    },
    State.TRANSCRIBING: {
        Step.AUDIO: State.TRANSCRIBING,
        Step.UNDERSTOOD: State.REPLYING,
        Step.CANCEL: State.LISTENING,
        Step.TURN_OVER: State.LISTENING,
    },
    State.REPLYING: {
        Step.AUDIO: State.REPLYING,
        Step.CANCEL: State.LISTENING,
        Step.TURN_OVER: State.LISTENING,
    },
    State.CLOSED: {},
}
