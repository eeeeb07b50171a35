"""The state table of a conversation.

A session is always in one state, and takes only the steps that the table has for that
state. ``TRANSCRIBING`` and ``REPLYING`` together are a turn: it begins when the user
has finished and ends with exactly one ``TurnCompleted``. Waiting for the client's tools
is part of ``REPLYING``, because earlier text may still be spoken; ``client_tools``
holds the awaited answers.
"""

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """The state of a conversation."""

    __hash__ = object.__hash__
    """The table is read with every event, and the hash of an enumeration is computed in
    Python.
    """

    OPENED = auto()
    """Connected; neither audio nor a turn has begun."""
    LISTENING = auto()
    """The user's turn: audio is recognised."""
    TRANSCRIBING = auto()
    """The user has finished; the recogniser's last result is awaited."""
    REPLYING = auto()
    """The model and the synthesiser work, or paced audio is being sent."""
    CLOSED = auto()
    """The end: no event changes anything."""


class Step(Enum):
    """The steps between states."""

    __hash__ = object.__hash__

    AUDIO = auto()
    COMMIT = auto()
    """The user has finished."""
    RESPOND = auto()
    """A reply is requested without words of the user."""
    UNDERSTOOD = auto()
    """The turn's text is known."""
    CANCEL = auto()
    TURN_OVER = auto()
    """No words were recognised, the reply was completed, or something failed."""


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
