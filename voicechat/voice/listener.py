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


class StreamFrames(NamedTuple):
    """Consecutive frames of one stream, at most ``MOST_FRAMES``, each 32 ms of s16le
    mono 16 kHz.
    """

    listener: Listener
    frames: tuple[bytes, ...]
    after_gap: bool = False
    """Audio is missing before the first frame."""
    admitted: bool = False
    """True: `Listener.admits` has already taken the first frame, and the model must
    judge it.
    """


@dataclass(frozen=True, slots=True)
class Scores:
    """The probabilities of speech in the frames of each stream, and the number of
    frames that the model judged.
    """

    probabilities: list[list[float]]
    modelled: int


class _Run(NamedTuple):
    """The frames of one stream that the model judges. They are consecutive: of
    ``MOST_FRAMES`` frames, one that is not admitted is the first or the last.
    """

    listener: Listener
    state: Floats
    """The model's state before the first of them."""
    rows: list[bytes]
    """Each frame, after the last samples of the one before."""
    ends: bool
    """Whether a frame that is not admitted follows: it resets the state."""
    results: list[float]
    """The probabilities of all frames of the stream."""
    first: int
    """The index of the first of ``rows`` in ``results``."""


def score(model: VoiceModel, streams: Sequence[StreamFrames]) -> Scores:
    """Judge the next frames of many streams, at most `MOST_STREAMS`; no listener may
    appear twice.

    The probability of a frame that is not admitted is 0.
    """
    probabilities = [[0.0] * len(stream.frames) for stream in streams]
    runs = [
        run
        for stream, results in zip(streams, probabilities, strict=True)
        if (run := _admit(stream, results)) is not None
    ]
    if not runs:
        return Scores(probabilities, 0)
    runs.sort(key=lambda run: -len(run.rows))
    counts: list[int] = []
    rows: list[bytes] = []
    for number in range(len(runs[0].rows)):
        following = [run.rows[number] for run in runs if number < len(run.rows)]
        counts.append(len(following))
        rows += following
    samples = np.frombuffer(b"".join(rows), "<i2").reshape(
        len(rows), CONTEXT_SAMPLES + FRAME_SAMPLES
    )
    # Joining and splitting rows of states as they are stored takes a third of the time
    # of stacking them. The model gets, and returns, a view with the streams as the
    # middle axis.
    states = np.concatenate([run.state for run in runs])
    states = states.reshape(len(runs), *STATE_SHAPE).transpose(1, 0, 2)
    speech, states = model.score(samples, states, counts)
    spoken = iter(speech.tolist())
    for number, count in enumerate(counts):
        for run in runs[:count]:
            run.results[run.first + number] = next(spoken)
    new_states = states.transpose(1, 0, 2).reshape(len(runs), -1)
    for run, state in zip(runs, new_states, strict=True):
        if not run.ends:
            # A copy, because a view would keep the matrix of all streams alive.
            run.listener.state = state.copy()
    return Scores(probabilities, len(rows))


def _admit(stream: StreamFrames, results: list[float]) -> _Run | None:
    """Pass the frames of a stream through its gate. Returns those that the model must
    judge, or None.
    """
    listener, frames, after_gap, admitted = stream
    run: _Run | None = None
    for index, frame in enumerate(frames):
        if not admitted and not listener.admits(frame, after_gap=after_gap):
            if run is not None:
                return run._replace(ends=True)
        else:
            if run is None:
                run = _Run(listener, listener.state, [], False, results, index)
            run.rows.append(listener.tail + frame)
            listener.tail = frame[-CONTEXT_BYTES:]
        admitted = after_gap = False
    return run
