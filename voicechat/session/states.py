"""The state table of a conversation.

The law: a session is always in one state; a step that a row does not name is not allowed in it, and a request that
asks for one is answered 40901 and changes nothing. ``TRANSCRIBING`` and ``REPLYING`` are one state to the client
("replying"): the turn has begun with ``complete`` and ends with exactly one ``conversation.chat.completed``. Waiting
for the client's tools is no state but a part of ``REPLYING``, because what was said before may still be spoken; which
answers are awaited ``Speaking`` knows.
"""

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """Where a conversation stands."""

    __hash__ = object.__hash__
    """The table is asked with every event; an enumeration's own hash is computed in Python."""

    CONFIGURING = auto()
    """Connected; no audio yet: the settings may still change."""
    LISTENING = auto()
    """The user's turn: audio is recognised."""
    TRANSCRIBING = auto()
    """The user has finished; the recogniser's last result is awaited."""
    REPLYING = auto()
    """The model and the synthesiser work, or paced audio is leaving."""
    CLOSED = auto()
    """Nothing more happens."""


class Step(Enum):
    """What asks a conversation to move."""

    __hash__ = object.__hash__

    UPDATE = auto()
    AUDIO = auto()
    CLEAR = auto()
    COMPLETE = auto()
    MESSAGE = auto()
    CANCEL = auto()
    UNDERSTOOD = auto()
    """The turn's text is known."""
    TURN_OVER = auto()
    """Nothing was understood, everything was spoken, or something failed."""


TURN = frozenset({State.TRANSCRIBING, State.REPLYING})

MOVES: Mapping[State, Mapping[Step, State]] = {
    State.CONFIGURING: {
        Step.UPDATE: State.CONFIGURING,
        Step.AUDIO: State.LISTENING,
        Step.MESSAGE: State.REPLYING,
        Step.CANCEL: State.CONFIGURING,
    },
    State.LISTENING: {
        Step.AUDIO: State.LISTENING,
        Step.CLEAR: State.LISTENING,
        Step.COMPLETE: State.TRANSCRIBING,
        Step.MESSAGE: State.REPLYING,
        Step.CANCEL: State.LISTENING,
    },
    State.TRANSCRIBING: {
        Step.AUDIO: State.TRANSCRIBING,
        Step.CLEAR: State.TRANSCRIBING,
        Step.CANCEL: State.LISTENING,
        Step.UNDERSTOOD: State.REPLYING,
        Step.TURN_OVER: State.LISTENING,
    },
    State.REPLYING: {
        Step.AUDIO: State.REPLYING,
        Step.CLEAR: State.REPLYING,
        Step.CANCEL: State.LISTENING,
        Step.TURN_OVER: State.LISTENING,
    },
    State.CLOSED: {},
}

REFUSALS: Mapping[Step, str] = {
    Step.UPDATE: "chat.update is only allowed before the first audio",
    Step.CLEAR: "input_audio_buffer.clear: no audio has been sent yet",
    Step.COMPLETE: "input_audio_buffer.complete: no audio has been sent yet, or a turn is still in progress",
    Step.MESSAGE: "conversation.message.create: a turn is still in progress",
}
"""What a client is told whose request asks for a step that the table does not allow."""
