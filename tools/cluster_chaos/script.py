"""What the users of the cluster say, and what the scripted model answers.

Each turn of each user has a number of its own, and so has each request to the model. An
answer names its turn, its request, and how many earlier turns the model saw: so a user
notices an answer that is missing, comes twice, or comes from a conversation that has
forgotten what was said.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

TURNS_OF_A_USER = 10_000
GREETING = "Welcome to the cluster."
REST = "This is the rest of the answer, which takes some seconds to be spoken. Ask again."
_NUMBER = re.compile(r"\bturn number (\d+)")
_ANSWER = re.compile(r"Answer to (\d+), request ([0-9a-f]+), after (\d+) turns\.")


@dataclass(frozen=True, slots=True)
class Answer:
    """The beginning of an answer."""

    turn: int
    request: str
    """Which request to the model made it."""
    earlier: int
    """The number of different earlier turns in the history."""

    @property
    def text(self) -> str:
        """Write it as the model does."""
        return f"Answer to {self.turn}, request {self.request}, after {self.earlier} turns. "


def turn_of(user: int, number: int) -> int:
    """Return the number of a user's turn, which no other turn has."""
    return user * TURNS_OF_A_USER + number


def answer_to(said: Sequence[str], request: str) -> Answer:
    """Answer the last of the user's messages."""
    turns = [int(number) for text in said for number in _NUMBER.findall(text)]
    last = turns[-1] if turns else 0
    return Answer(last, request, len(set(turns) - {last}))


def answers_in(text: str) -> list[Answer]:
    """Return the beginnings of answers in a text, in order."""
    return [
        Answer(int(turn), request, int(earlier)) for turn, request, earlier in _ANSWER.findall(text)
    ]
