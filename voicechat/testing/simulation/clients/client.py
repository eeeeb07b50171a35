"""What the clients of all protocols have in common: they connect, take their turns,
suffer their mishaps and leave.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from voicechat.dialects.base import Frame
from voicechat.session.types import Message
from voicechat.testing.simulation.invariants import Violation
from voicechat.testing.simulation.network import LOST, SimulatedLink
from voicechat.testing.simulation.providers import (
    CHARACTER_MS,
    ProviderStage,
    last_user_text,
    reply_text,
    text_of,
    word_pcm,
)
from voicechat.testing.simulation.scenario import FIRST_WORD, LAST_WORD, Mishap, Turn, Visit

PATIENCE_S = 240.0
"""How long a client waits for the end of a turn: longer than all deadlines of a turn
together.
"""
SPOKEN_MS = 200
RECONNECT_S = 1.0
CUT_TOLERANCE = 24
"""Characters by which the memory of an interrupted reply may exceed what was heard: a
word, and the spaces between sentences, which are not spoken.
"""


class Surroundings(Protocol):
    """What a client needs of the world."""

    stage: ProviderStage

    def connect(
        self, visit: Visit, target: str, headers: Mapping[str, str]
    ) -> SimulatedLink | None:
        """Connect to a server; None if none can be reached."""

    def report(self, violation: Violation) -> None:
        """Note a violation."""

    def expect_requests(self, client: "SimulatedClient", heads: list[int]) -> None:
        """Tell the client of each request to a model about its utterances."""

    def count_turn(self) -> None:
        """Count a turn."""


@dataclass(eq=False, slots=True)
class SaidTurn:
    """What a client knows of one of its turns."""

    words: list[int]
    """What was said in it, in order."""
    turn: Turn | None = None
    text: str = ""
    """What the server has understood."""
    reply: str = ""
    """What it has answered so far."""
    reply_id: str = ""
    granted: bool = False
    failed: bool = False
    """An error was told in it."""
    cancelled: bool = False
    finished: bool = False
    """The reply has come to its end."""
    ended: bool = False
    """The turn is over."""
    lenient: bool = False
    """Something has happened after which the memory of it cannot be foretold."""
    first_audio_s: float = 0.0
    cancelled_s: float = 0.0
    ended_s: float = 0.0
    sentences: list[tuple[int, float]] = field(default_factory=list)
    """The values of the speech that came, each with its milliseconds."""
    audio_ms: float = 0.0


class SimulatedClient(ABC):
    """One visit. Each protocol adds how it says things, and how it understands what it
    is told.
    """

    def __init__(self, visit: Visit, world: Surroundings) -> None:
        """Within a running loop."""
        self.visit = visit
        self.world = world
        self.loop = asyncio.get_running_loop()
        self.random = Random(visit.seed)
        self.link: SimulatedLink | None = None
        self.changed = asyncio.Event()
        self.history: list[SaidTurn] = []
        """The turns of the conversation that the server must remember."""
        self.unsure = False
        """The server has been asked to forget everything, and has not answered yet."""
        self.excuses: set[str] = set()
        """What has happened on this connection that allows for its end."""
        self.ended_with: int | None = None
        """How the last connection ended."""
        self.connected_s = 0.0
        self._connected_at_s = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._heads: set[int] = set()
        """Of the utterances on this connection."""
        world.expect_requests(self, [turn.head for turn in visit.turns])

    # --- what a protocol adds ---------------------------------------------------------

    target = ""
    """The path, with the query."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers of the request."""
        return {}

    @abstractmethod
    def begin(self) -> None:
        """A connection begins: reset what is known of the last one."""

    @property
    @abstractmethod
    def admitted(self) -> bool:
        """Whether the session has begun."""

    @property
    @abstractmethod
    def settled(self) -> bool:
        """Whether no turn is open and no answer is awaited."""

    @abstractmethod
    def hear(self, frame: Frame) -> None:
        """Understand a frame, and check it."""

    @abstractmethod
    def say(self, turn: Turn, words: tuple[int, ...]) -> None:
        """Send the speech of words, as part of a turn."""

    @abstractmethod
    def commit(self, turn: Turn) -> None:
        """End the turn of the user."""

    @abstractmethod
    def type(self, turn: Turn) -> None:
        """Send a turn as text."""

    @abstractmethod
    def suffer(self, mishap: Mishap, turn: Turn) -> None:
        """Carry out a mishap that is the protocol's own."""

    # --- the visit --------------------------------------------------------------------

    async def run(self) -> None:
        """Play the visit."""
        await asyncio.sleep(self.visit.begins_s)
        for turn in self.visit.turns:
            if not await self._connect():
                break
            await asyncio.sleep(turn.pause_s)
            if self.link is None or not self.link.open:
                continue  # the connection was lost meanwhile, and with it this turn
            await self._take_turn(turn)
            self.world.count_turn()
        await self._leave()

    async def _connect(self) -> bool:
        tries = 0
        while self.link is None or not self.link.open:
            self.ended_with = None
            self.excuses.clear()
            self.link = self.world.connect(self.visit, self.target, self.headers())
            if self.link is not None:
                self.history.clear()
                self._heads.clear()
                self.unsure = False
                self.begin()
                self.link.on_frame = self._on_frame
                self.link.on_end = self._on_end
                self._connected_at_s = self.loop.time()
                await self.until(lambda: self.admitted)
                if self.admitted and self.link.open:
                    return True
            tries += 1
            if tries > 100:
                self.violated("admission", "no server has admitted the client for minutes")
                return False
            await asyncio.sleep(RECONNECT_S)
        return True

    async def _take_turn(self, turn: Turn) -> None:
        link = self.link
        assert link is not None
        self._heads.add(turn.head)
        said_s = 0.0 if turn.typed else len(turn.words) * SPOKEN_MS / 1000
        self._timers = [
            self.loop.call_later(max(0.0, said_s + mishap.after_s), self._befall, mishap, turn)
            for mishap in turn.mishaps
        ]
        if turn.typed:
            self.type(turn)
        else:
            half = len(turn.words) // 2 + 1
            for words in (turn.words[:half], turn.words[half:]):
                if words and link.open:
                    await asyncio.sleep(len(words) * SPOKEN_MS / 1000)
                    self.say(turn, words)
            if link.open:
                self.commit(turn)
        await self.until(lambda: self.settled)
        if link.open and not self.settled:
            if not link.half_open:
                self.violated("turn", f"a turn has not ended after {PATIENCE_S:.0f} s")
            link.cut()
        for timer in self._timers:
            timer.cancel()

    async def _leave(self) -> None:
        link = self.link
        if link is None or not link.open:
            return
        match self.visit.ending:
            case "cut":
                link.cut()
            case "vanish":
                link.vanish()
                await asyncio.sleep(RECONNECT_S)
                link.leave()
            case "silent":
                self.excuses.add("silent")
                await asyncio.sleep(90.0)
                link.leave()
            case _:
                link.leave()

    def _befall(self, mishap: Mishap, turn: Turn) -> None:
        link = self.link
        if link is None or not link.open:
            return
        match mishap.kind:
            case "cut":
                link.cut()
            case "vanish":
                link.vanish()
                self.loop.call_later(mishap.for_s, link.leave)
            case "leave":
                link.leave()
            case "stop reading":
                link.stop_reading()
                self.excuses.add("not reading")
                for said in self.history[-1:]:
                    said.lenient = True
                self.loop.call_later(mishap.for_s, link.resume_reading)
            case _:
                self.suffer(mishap, turn)

    # --- helpers of the protocols -----------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Send a frame on the connection."""
        if self.link is not None:
            self.link.send(frame)

    async def until(self, condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        """Wait until a condition holds, the connection is over, or ``within_s`` have
        passed.
        """
        try:
            async with asyncio.timeout(within_s):
                while self.link is not None and self.link.open and not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return

    def violated(self, rule: str, what: str) -> None:
        """Report that a rule did not hold."""
        self.world.report(Violation(rule, self.visit.number, self.loop.time(), what))

    def require(self, holds: object, rule: str, what: str) -> None:
        """Report a violation unless ``holds``."""
        if not holds:
            self.violated(rule, what)

    def more_words(self) -> tuple[int, ...]:
        """Return words that belong to no planned utterance."""
        return tuple(self.random.sample(range(FIRST_WORD, LAST_WORD), k=2))

    def speech(self, words: tuple[int, ...]) -> bytes:
        """Return the speech of words: s16le mono at 16 kHz."""
        return b"".join([word_pcm(word) for word in words])

    def hear_speech(self, said: SaidTurn, pcm: bytes) -> None:
        """Take the next piece of a reply's speech: s16le mono at 16 kHz."""
        if not said.audio_ms:
            said.first_audio_s = self.loop.time()
        said.audio_ms += len(pcm) / 32
        for value in memoryview(pcm).cast("h")[160::320].tolist():
            if said.sentences and said.sentences[-1][0] == value:
                said.sentences[-1] = (value, said.sentences[-1][1] + 20)
            else:
                said.sentences.append((value, 20.0))

    def check_speech(self, said: SaidTurn) -> None:
        """Check that what was spoken is the reply, each sentence once and in order."""
        spoken = [self.world.stage.sentence_of(value) for value, _ in said.sentences]
        text = reply_text(said.text)
        position = 0
        for sentence in spoken:
            found = text.find(sentence, position) if sentence else -1
            if found < 0:
                self.violated("rule 4", f"{sentence!r} is not spoken in its place of {text!r}")
                return
            position = found + len(sentence)

    def check_reply(self, said: SaidTurn) -> None:
        """Check that the text of a reply answers what was said."""
        wanted = reply_text(said.text)
        self.require(
            wanted.startswith(said.reply),
            "rule 4",
            f"the reply {said.reply!r} is no beginning of {wanted!r}",
        )

    # --- the memory of the model ------------------------------------------------------

    def asked(self, head: int, messages: tuple[Message, ...]) -> None:
        """A model is asked about an utterance of this client: check what it is told of
        the conversation before.
        """
        if self.unsure or head not in self._heads:
            return  # of an earlier connection
        said = [message for message in messages if message["role"] in ("user", "assistant")]
        now_s = self.loop.time()
        text = last_user_text(messages)
        known = {turn.text: turn for turn in self.history if turn.text}
        position = -1
        order = {id(turn): number for number, turn in enumerate(self.history)}
        before: SaidTurn | None = None
        remembered: set[int] = set()
        for message in said:
            content = text_of(message)
            if message["role"] == "assistant":
                if before is not None and content:
                    self._check_memory(before, content, now_s)
                continue
            for line in content.split("\n"):
                before = known.get(line)
                if before is None and line != text:
                    self.violated("memory", f"the model is told {line!r}, which was not said")
                    return
                if before is not None:
                    if order[id(before)] <= position:
                        self.violated("memory", f"the model is told {line!r} twice or too late")
                        return
                    position = order[id(before)]
                    remembered.add(position)
        for number, turn in enumerate(self.history[-60:], max(0, len(self.history) - 60)):
            solid = turn.ended and turn.finished and not turn.failed and not turn.lenient
            if solid and turn.text and turn.text != text and number not in remembered:
                self.violated("memory", f"the model is not told {turn.text!r}")
                return

    def forget(self, turns: list[SaidTurn]) -> None:
        """The server has forgotten these turns. The reply to the last of them may go
        on, and ask again with what it knew.
        """
        self.unsure = False
        self._heads -= {said.turn.head for said in turns if said.turn is not None}
        forgotten = set(map(id, turns))
        self.history = [said for said in self.history if id(said) not in forgotten]

    def _check_memory(self, turn: SaidTurn, content: str, now_s: float) -> None:
        """Check what the model is told of the reply to a turn (rule 6)."""
        whole = reply_text(turn.text)
        if turn.lenient or turn.failed:
            return
        if not whole.startswith(content):
            self.violated("rule 6", f"the memory holds {content!r} of the reply {whole!r}")
            return
        rest = whole[len(content) :]
        self.require(
            not rest or rest[0] == " " or content[-1:] == " ",
            "rule 6",
            f"the memory {content!r} is not cut at a word of {whole!r}",
        )
        if turn.cancelled:
            quality = self.visit.quality
            heard_s = 0.0
            if turn.audio_ms:
                heard_s = turn.cancelled_s - turn.first_audio_s + quality.jitter_s + 0.05
            most = heard_s * 1000 / CHARACTER_MS + CUT_TOLERANCE
            self.require(
                len(content) <= most,
                "rule 6",
                f"the memory holds {len(content)} characters of a reply of which at most "
                f"{heard_s:.2f} s were heard: {content!r}",
            )

    # --- the connection ---------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        self.hear(frame)

    def _on_end(self, code: int) -> None:
        self.ended_with = code
        self.connected_s += self.loop.time() - self._connected_at_s
        self.changed.set()
        self.check_end(code)

    def check_end(self, code: int) -> None:
        """Check that the connection may end like this."""
        if "restart" in self.excuses:
            self.require(code in (LOST, 1012), "end", f"a restart ended with {code}")
            return
        if code in (1000, LOST, 1012) or (code == 1013 and "not reading" in self.excuses):
            return
        self.violated("end", f"the connection was closed with {code}")
