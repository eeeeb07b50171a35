"""Users who talk to the cluster through the Python client, and what they notice."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tools.cluster_chaos.cluster import KEY
from tools.cluster_chaos.script import GREETING, Answer, answers_in, turn_of
from voicechat.bench.script import FRAME, FRAME_MS, SPEECH_MS, first_frame
from voicechat.client import (
    Backoff,
    ClientConversation,
    CompletedMessage,
    ConnectionLostError,
    ErrorMessage,
    Reconnected,
    ReconnectingConversation,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
    chat_settings,
    connect,
)
from voicechat.errors import AdmissionError

TURN_S = 30.0
"""A turn without an end after this long is lost, and nobody has said so."""
SETTINGS = chat_settings(
    input_format="pcm",
    sample_rate_hz=16_000,
    output_format="PCM_16000HZ_MONO_16BIT",
    binary_audio=True,
)


@dataclass(slots=True)
class Tally:
    """What all users have noticed."""

    turns: int = 0
    """Turns that were answered."""
    returns: int = 0
    """Connections that were lost and replaced."""
    return_ms: list[float] = field(default_factory=list)
    """How long the successful attempts to return took, each until the conversation
    goes on.
    """
    away_ms: list[float] = field(default_factory=list)
    """From the loss of each connection until the conversation goes on."""
    repeated: int = 0
    """Turns that the user had to say again, because the client said that they are
    lost.
    """
    forgotten: list[str] = field(default_factory=list)
    """Answers of a model that did not know every earlier turn."""
    doubled: list[str] = field(default_factory=list)
    """Answers that arrived twice, and second answers to a turn that was said once."""
    second_greetings: list[str] = field(default_factory=list)
    silently_lost: list[str] = field(default_factory=list)
    """Turns that have no end, of which nobody has said that they are lost."""
    ended: list[str] = field(default_factory=list)
    """Conversations that did not go on."""

    @property
    def sound(self) -> bool:
        """Whether every conversation went on, and nothing was lost or doubled."""
        return self.turns > 0 and not any(self.faults.values())

    @property
    def faults(self) -> dict[str, list[str]]:
        """What must not happen, by what it is called."""
        return {
            "conversations that ended": self.ended,
            "turns that were lost silently": self.silently_lost,
            "answers without the whole history": self.forgotten,
            "doubled answers": self.doubled,
            "second greetings": self.second_greetings,
        }


class User:
    """One user, who speaks a turn, hears the answer, and speaks again."""

    def __init__(self, number: int, url: str, tally: Tally, seed: int) -> None:
        self._number = number
        self._tally = tally
        self._url = url
        self._chance = random.Random(f"{seed}/{number}")
        self._loop = asyncio.get_running_loop()
        self._conversation = ReconnectingConversation(
            self._open, Backoff(first_s=0.05, longest_s=1.0)
        )
        self._attempt_ms = 0.0
        self._lost_s: float | None = None
        self._said: dict[int, int] = {}
        """How often each turn was said."""
        self._answered: dict[int, set[str]] = {}
        """The requests whose answers to each turn were heard."""
        self._texts: dict[str, str] = {}
        self._connections = 0
        self._changed = asyncio.Event()
        self._finished: set[int] = set()
        """The turns that were answered to their end."""
        self._greeted = False
        self._greeting_over = asyncio.Event()
        self._again = False
        """Whether the client has said that the turn in progress is lost."""

    async def talk_until(self, end_s: float) -> None:
        """Hold the conversation; the last turn begins before ``end_s`` (loop time)."""
        keeping = asyncio.create_task(self._conversation.keep_connected())
        listening = asyncio.create_task(self._listen())
        try:
            await self._conversation.wait_connected()
            await self._conversation.update(SETTINGS)
            async with asyncio.timeout(TURN_S):
                await self._greeting_over.wait()
            number = 0
            while self._loop.time() < end_s:
                number += 1
                await self._take_turn(turn_of(self._number, number))
                await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        except (ConnectionLostError, AdmissionError) as error:
            self._tally.ended.append(f"user {self._number}: {error}")
        except TimeoutError:
            self._tally.ended.append(f"user {self._number}: no greeting")
        finally:
            keeping.cancel()
            listening.cancel()
            await asyncio.gather(keeping, listening, return_exceptions=True)

    async def _take_turn(self, turn: int) -> None:
        begun_s = self._loop.time()
        await self._say(turn)
        while turn not in self._finished:
            left_s = begun_s + TURN_S - self._loop.time()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                self._tally.silently_lost.append(f"turn {turn}")
                return
            self._changed.clear()
            if self._again and turn not in self._answered:
                self._tally.repeated += 1
                begun_s = self._loop.time()
                await self._say(turn)
        self._tally.turns += 1

    async def _say(self, turn: int) -> None:
        self._again = False
        self._said[turn] = self._said.get(turn, 0) + 1
        connections = self._connections
        for number in range(SPEECH_MS // FRAME_MS):
            await self._conversation.send_audio(first_frame(turn) if number == 0 else FRAME)
            await asyncio.sleep(FRAME_MS / 1000)
            if self._connections != connections and self._again:
                return
        await self._conversation.complete()

    async def _listen(self) -> None:
        try:
            async for message in self._conversation:
                self._hear(message)
                self._changed.set()
        except (ConnectionLostError, AdmissionError):
            pass  # the next request raises it
        finally:
            self._changed.set()

    def _hear(self, message: ServerMessage | Reconnected) -> None:
        match message:
            case Reconnected():
                self._again = True
                self._texts.clear()
            case ReplyTextMessage(reply_id=reply, content=content):
                before = self._texts.get(reply, "")
                self._texts[reply] = before + content
                known = len(answers_in(before))
                for answer in answers_in(self._texts[reply])[known:]:
                    self._hear_answer(answer)
                if self._texts[reply].count(GREETING) > before.count(GREETING):
                    self._hear_greeting()
            case ErrorMessage() | CompletedMessage(granted=False):
                self._again = True
            case TurnCompletedMessage():
                # What was answered before it: the end of a greeting ends no answer.
                self._finished |= self._answered.keys()
                self._greeting_over.set()
            case _:
                pass

    def _hear_answer(self, answer: Answer) -> None:
        requests = self._answered.setdefault(answer.turn, set())
        said_once = self._said.get(answer.turn, 0) < 2
        if answer.request in requests or (requests and said_once):
            self._tally.doubled.append(f"turn {answer.turn}")
        requests.add(answer.request)
        earlier = len(self._answered.keys() - {answer.turn})
        if answer.earlier < earlier:
            self._tally.forgotten.append(
                f"turn {answer.turn}: {answer.earlier} of {earlier} turns known"
            )

    def _hear_greeting(self) -> None:
        if self._greeted:
            self._tally.second_greetings.append(f"user {self._number}")
        self._greeted = True

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[ClientConversation]:
        begun_s = self._loop.time()
        async with connect(self._url, key=KEY) as conversation:
            now_s = self._loop.time()
            self._connections += 1
            if self._lost_s is not None:
                self._tally.returns += 1
                self._tally.return_ms.append(1000 * (now_s - begun_s))
                self._tally.away_ms.append(1000 * (now_s - self._lost_s))
            try:
                yield conversation
            finally:
                self._lost_s = self._loop.time()
