"""What is remembered of each stream between two frames, and the one model call that
serves them all.
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

NEW_STATE: Floats = np.zeros(STATE_SHAPE, np.float32)
"""Of a new stream; the model's answers replace it, nothing changes it."""
NEW_STATE.flags.writeable = False


class Listener:
    """The memory of one stream. Nothing in it is shared: streams meet only inside the
    model's matrices.
    """

    __slots__ = ("gate", "state", "tail")
    gate: Gate
    state: Floats
    tail: bytes
    """The last samples of the frame before."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Audio was lost: forget what came before it."""
        self.gate = Gate()
        self.state = NEW_STATE
        self.tail = bytes(CONTEXT_BYTES)


class StreamFrame(NamedTuple):
    """One frame of one stream, 32 ms of s16le mono 16 kHz."""

    listener: Listener
    frame: bytes
    after_gap: bool = False
    """Audio is missing before this frame."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The probabilities of speech, in the order of the frames, and how many of them
    took the model.
    """

    probabilities: list[float]
    modelled: int


def score(model: VoiceModel, frames: Sequence[StreamFrame]) -> Scores:
    """Judge one frame of each of many streams, at most `MOST_STREAMS`; no listener may
    appear twice.

    A stream whose gate is closed costs nothing more: its probability is 0 and its state
    becomes that of a new stream, so that what follows a silence does not depend on how
    long it was. The samples before the frame are kept either way.
    """
    probabilities = [0.0] * len(frames)
    rows: list[int] = []
    pcm: list[bytes] = []
    for index, (listener, frame, after_gap) in enumerate(frames):
        if after_gap:
            listener.restart()
        if listener.gate.push(frame):
            rows.append(index)
            pcm += (listener.tail, frame)
        else:
            listener.state = NEW_STATE
        listener.tail = frame[-CONTEXT_BYTES:]
    if not rows:
        return Scores(probabilities, 0)
    samples = np.frombuffer(b"".join(pcm), "<i2").reshape(
        len(rows), CONTEXT_SAMPLES + FRAME_SAMPLES
    )
    states = np.stack([frames[index].listener.state for index in rows], axis=1)
    spoken, new_states = model.score(samples, states)
    for row, (index, probability) in enumerate(zip(rows, spoken.tolist(), strict=True)):
        probabilities[index] = probability
        # A copy: a view would keep the matrix of all streams alive.
        frames[index].listener.state = new_states[:, row].copy()
    return Scores(probabilities, len(rows))
