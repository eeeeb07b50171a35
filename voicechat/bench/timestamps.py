"""The timestamps that the scripted services of a bench record on the server.

The time between a request to a service and its answer belongs to the script: its delay,
and how late its timers fired. The time between an answer and the request to the next
service belongs to the engine. Timestamps are nanoseconds of the system's monotonic
clock, which the bench's clients share. (uvloop's clock counts whole milliseconds.)
"""

import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias, TypeVar

import orjson

from voicechat.runtime.provider_deadlines import closing

T = TypeVar("T")


class Moment(IntEnum):
    """The recorded events of a turn, in the order in which they happen."""

    TOLD = 0
    """The recogniser received the end of the audio."""
    UNDERSTOOD = 1
    """The recogniser returned its final result."""
    ASKED = 2
    """The model received the request."""
    SENTENCE = 3
    """The model returned the end of its first sentence."""
    SPEAK = 4
    """The synthesiser received that sentence."""
    SAMPLES = 5
    """The synthesiser returned the first samples."""


Moments: TypeAlias = list[int]
"""Timestamps indexed by ``Moment``; 0 if the event did not happen."""


class TurnTimestamps:
    """The timestamps of every turn, by its number."""

    def __init__(self) -> None:
        self.turns: defaultdict[int, Moments] = defaultdict(lambda: [0] * len(Moment))

    def mark(self, turn: int, moment: Moment) -> None:
        """Record the current time."""
        self.turns[turn][moment] = time.monotonic_ns()

    def write_to(self, folder: Path) -> None:
        """Write the timestamps to a file of this process, for ``read_from``."""
        (folder / f"{os.getpid()}.json").write_bytes(
            orjson.dumps(self.turns, option=orjson.OPT_NON_STR_KEYS)
        )

    @staticmethod
    def read_from(folder: Path) -> dict[int, Moments]:
        """Merge the files of all processes of a server. Each turn is in one of them."""
        files = [orjson.loads(file.read_bytes()) for file in folder.glob("*.json")]
        return {int(turn): moments for turns in files for turn, moments in turns.items()}

    async def mark_end_of(self, items: AsyncIterator[T], turn: int) -> AsyncIterator[T]:
        """Pass the recogniser's audio through, and record when it ends."""
        async for item in items:
            yield item
        self.mark(turn, Moment.TOLD)

    async def mark_items(
        self, items: AsyncIterator[T], turn: int, asked: Moment, answered: Moment, answer: int = 1
    ) -> AsyncIterator[T]:
        """Pass a service's ``items`` through. Records when the first is requested, and
        when item number ``answer`` arrives.
        """
        self.mark(turn, asked)
        given = 0
        async with closing(items):
            async for item in items:
                given += 1
                if given == answer:
                    self.mark(turn, answered)
                yield item


TIMESTAMPS = TurnTimestamps()
"""The timestamps of this process, which is a server or one of its workers."""
