"""Who had a turn when: the server's half of a bench, kept by the scripted services.

What lies between a service's being asked and its answer is the script's own: its delay,
and how late its timers woke. What lies between an answer and the next service's being
asked is the engine's. Moments are nanoseconds of the system's monotonic clock, which
the client of the bench shares (uvloop's own counts whole milliseconds).
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
    """What is noted of a turn, in the order it happens."""

    TOLD = 0
    """The recogniser learned that the user has finished."""
    UNDERSTOOD = 1
    """The recogniser gave its final result."""
    ASKED = 2
    """The model was asked."""
    SENTENCE = 3
    """The model gave the end of its first sentence."""
    SPEAK = 4
    """The synthesiser was asked to say it."""
    SAMPLES = 5
    """The synthesiser gave the first samples."""


Moments: TypeAlias = list[int]
"""Indexed by ``Moment``; 0: it has not come to that."""


class TurnTimestamps:
    """The moments of every turn, by its number."""

    def __init__(self) -> None:
        self.turns: defaultdict[int, Moments] = defaultdict(lambda: [0] * len(Moment))

    def mark(self, turn: int, moment: Moment) -> None:
        """It is happening now."""
        self.turns[turn][moment] = time.monotonic_ns()

    def write_to(self, folder: Path) -> None:
        """Leave what has been noted in a file of this process' own, for ``read_from``."""
        (folder / f"{os.getpid()}.json").write_bytes(
            orjson.dumps(self.turns, option=orjson.OPT_NON_STR_KEYS)
        )

    @staticmethod
    def read_from(folder: Path) -> dict[int, Moments]:
        """Take what all processes of a server have left: a turn is had in one of them."""
        files = [orjson.loads(file.read_bytes()) for file in folder.glob("*.json")]
        return {int(turn): moments for turns in files for turn, moments in turns.items()}

    async def mark_end_of(self, items: AsyncIterator[T], turn: int) -> AsyncIterator[T]:
        """Hand the recogniser's audio on; note when there is no more."""
        async for item in items:
            yield item
        self.mark(turn, Moment.TOLD)

    async def mark_items(
        self, items: AsyncIterator[T], turn: int, asked: Moment, answered: Moment, answer: int = 1
    ) -> AsyncIterator[T]:
        """Hand a service's ``items`` on; note when the first is wanted, and when item
        number ``answer`` is there.
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
"""Of this process, which is a server or one of its workers."""
