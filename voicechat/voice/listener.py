"""The state of each stream between two frames, and the one model call that serves all
streams.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voicechat.voice.gate import Gate
from voicechat.voice.silero import (
    CONTEXT_BYTES,
    CONTEXT_SAMPLES,
    FRAME_SAMPLES,
    STATE_SHAPE,
    Floats,
    VoiceModel,
)

NEW_STATE: Floats = np.zeros(STATE_SHAPE[0] * STATE_SHAPE[1], np.float32)
"""The state of a new stream. It is read-only; the model's results replace it."""
NEW_STATE.flags.writeable = False


class Listener:
    """The state of one stream. Streams share nothing; they meet only inside the model's
    matrices.
    """

    __slots__ = ("gate", "state", "tail")
    gate: Gate
    state: Floats
    """The model's state: `STATE_SHAPE` in one row."""
    tail: bytes
    """The last samples of the previous frame."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Reset the state, because audio was lost."""
        self.gate = Gate()
        self.state = NEW_STATE
        self.tail = bytes(CONTEXT_BYTES)

    def admits(self, frame: bytes, *, after_gap: bool = False) -> bool:
        """Take the next frame; return whether the model must judge it.

        A frame at which the gate is closed is silence and costs nothing more. It resets
        the model's state, so that the result after a silence does not depend on its
        length.
        """
        if after_gap:
            self.restart()
        if self.gate.push(frame):
            return True
        self.state = NEW_STATE
        self.tail = frame[-CONTEXT_BYTES:]
        return False


class StreamFrame(NamedTuple):
    """One frame of one stream, 32 ms of s16le mono 16 kHz."""

    listener: Listener
    frame: bytes
    after_gap: bool = False
    """Audio is missing before this frame."""
    admitted: bool = False
    """True: `Listener.admits` has already taken the frame, and the model must judge
    it.
    """


@dataclass(frozen=True, slots=True)
class Scores:
    """The probabilities of speech, in the order of the frames, and the number of frames
    that the model judged.
    """

    probabilities: list[float]
    modelled: int


def score(model: VoiceModel, frames: Sequence[StreamFrame]) -> Scores:
    """Judge one frame of each of many streams, at most `MOST_STREAMS`; no listener may
    appear twice.

    The probability of a frame that is not admitted is 0.
    """
    probabilities = [0.0] * len(frames)
    rows: list[int] = []
    pcm: list[bytes] = []
    states: list[Floats] = []
    for index, (listener, frame, after_gap, admitted) in enumerate(frames):
        if admitted or listener.admits(frame, after_gap=after_gap):
            rows.append(index)
            pcm += (listener.tail, frame)
            states.append(listener.state)
            listener.tail = frame[-CONTEXT_BYTES:]
    if not rows:
        return Scores(probabilities, 0)
    samples = np.frombuffer(b"".join(pcm), "<i2").reshape(
        len(rows), CONTEXT_SAMPLES + FRAME_SAMPLES
    )
    # Joining and splitting rows of states as they are stored takes a third of the time
    # of stacking them. The model gets, and returns, a view with the streams as the
    # middle axis.
    joined = np.concatenate(states).reshape(len(rows), *STATE_SHAPE).transpose(1, 0, 2)
    spoken, new_states = model.score(samples, joined)
    new_rows = new_states.transpose(1, 0, 2).reshape(len(rows), -1)
    for index, probability, state in zip(rows, spoken.tolist(), new_rows, strict=True):
        probabilities[index] = probability
        # A copy, because a view would keep the matrix of all streams alive.
        frames[index].listener.state = state.copy()
    return Scores(probabilities, len(rows))
