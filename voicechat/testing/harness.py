"""A whole conversation in memory, for tests of providers, dialects and the runtime.

The session and the runtime are the server's own. The client is the test, and by default
it speaks commands and notices directly, without any protocol's encoding::

    async with ConversationHarness(synthesizer=mine) as harness:
        harness.send(CommitTurn("Hello"))
        await harness.notice(TurnCompleted)
        assert harness.of(ReplyAudio)

Use it under ``VirtualTimeLoop``, where waiting takes no time, or on a real loop when a
provider opens sockets, threads or processes.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from voicechat.dialects.base import Dialect, Frame, Reaction, Tell
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    ChatModel,
    SpeechRecognizer,
    SpeechSynthesizer,
)
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.audio_input import Detector
from voicechat.runtime.consulting.informed_model import InformedModel
from voicechat.runtime.consulting.search_ahead import Search, SearchAhead
from voicechat.runtime.conversation import Conversation, SessionProviders
from voicechat.runtime.drawing import SessionDrawings
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.read_scheduler import ReadScheduler
from voicechat.runtime.recording import SessionRecorder
from voicechat.runtime.session_tools import OpenToolServer, no_tool_servers
from voicechat.runtime.socket import Socket
from voicechat.session.agent import Agent
from voicechat.session.commands import Alive, AnyCommand, Leave
from voicechat.session.effects import SessionMetric
from voicechat.session.events import AudioReceived
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.session.machine import Machine
from voicechat.session.notices import Notice, ReplyAudio
from voicechat.session.session import Session
from voicechat.session.types import Settings
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.testing.socket import MemorySocket

N = TypeVar("N")

FRAME_BYTES = PCM_RATE_HZ * 2 // 10
"""100 ms of audio: what ``send_audio`` puts into one frame."""


class CommandFrame(str):
    """A frame of the client that carries ``command`` itself."""

    __slots__ = ("command",)

    command: AnyCommand

    def __new__(cls, command: AnyCommand) -> Self:
        """Make the frame. Its text names the command, for messages about it."""
        frame = super().__new__(cls, type(command).__name__)
        frame.command = command
        return frame


class NoticeFrame(bytes):
    """A frame of the server that carries ``notice`` itself. It is as long as the audio,
    or as the notice written out, so that the outbox counts the bytes that wait.
    """

    notice: Notice

    def __new__(cls, notice: Notice) -> Self:
        """Make the frame."""
        payload = notice.payload if isinstance(notice, ReplyAudio) else repr(notice).encode()
        frame = super().__new__(cls, payload)
        frame.notice = notice
        return frame


class DirectDialect(Dialect):
    """Speaks no protocol: commands come as ``CommandFrame``, notices leave as
    ``NoticeFrame``, and every other binary frame is audio.
    """

    bare_audio = True

    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        """Hand the command on. Text that carries no command ends the session."""
        if isinstance(frame, CommandFrame):
            return (frame.command,)
        if isinstance(frame, bytes):
            return (AudioReceived(frame),) if frame else ()
        return (Leave("text frames of a DirectDialect are CommandFrames"),)

    def notify(self, notice: Notice, now_ms: int) -> Iterable[Reaction]:
        """Send the notice as it is."""
        return (Tell(NoticeFrame(notice)),)

    def pong(self, now_ms: int) -> Iterable[Reaction]:
        """An answered ping shows that the client is there."""
        return (Alive(),)


@dataclass(kw_only=True)
class ConversationHarness:
    """One conversation on a memory socket; an async context manager.

    Entering starts the conversation. Leaving disconnects the client, waits until the
    conversation has ended and checks that nothing of it is left: no task, and no stream
    of a scripted provider. Everything that is not given has a default: scripted
    providers, a session of default settings, ``DirectDialect``. One harness serves one
    conversation.
    """

    recognizer: SpeechRecognizer = field(default_factory=ScriptedRecognizer)
    model: ChatModel = field(default_factory=ScriptedModel)
    synthesizer: SpeechSynthesizer = field(default_factory=ScriptedSynthesizer)
    threads: EncodingThreads | None = None
    """None: the harness makes its own and closes them."""
    detector: Detector | None = None
    """Voice detection; without it there is no hands-free mode."""
    decoding: ForkServer | None = None
    """Processes for compressed input; without them it is refused."""
    reads: ReadScheduler = field(default_factory=ReadScheduler)
    """Its ``lateness`` is what the conversation takes for that of the event loop."""
    tool_servers: OpenToolServer = no_tool_servers
    """Opens tool servers that the client names."""
    drawings: SessionDrawings | None = None
    """Draws the pictures that the model asks for."""
    search: Search | None = None
    """Searches what the agent knows; None: it knows nothing."""
    settings: Settings = field(default_factory=Settings)
    limits: SessionLimits = field(default_factory=SessionLimits)
    agent: Agent = field(default_factory=Agent)
    apology: FallbackMessage | None = None
    interrupt_by_voice: bool = True
    machine: Machine | None = None
    """None: a ``Session`` of the settings, limits and agent above."""
    dialect: Dialect = field(default_factory=DirectDialect)
    socket: MemorySocket = field(default_factory=MemorySocket)
    carrier: Socket | None = None
    """What the conversation runs on instead of ``socket``, such as a
    ``ResumableSocket``. The test sends and reads on what it attaches to it.
    """
    poll_s: float = 0.001
    """How often ``until`` looks, in seconds."""
    close_s: float = 2.0
    """How long the conversation may take to release everything, in seconds."""
    recording: SessionRecorder | None = None
    """Gets what happens."""
    facts: list[SessionMetric] = field(default_factory=list)
    """The metric events of the session."""

    _conversation: Conversation | None = field(default=None, init=False, repr=False)
    _running: asyncio.Task[None] | None = field(default=None, init=False, repr=False)
    _tasks_before: set[asyncio.Task[Any]] = field(default_factory=set, init=False, repr=False)
    _own_threads: EncodingThreads | None = field(default=None, init=False, repr=False)

    # --- the conversation -------------------------------------------------------------

    @property
    def conversation(self) -> Conversation:
        """The conversation, made when it is first asked for, within a running loop.

        A test that posts events by itself uses it without entering the harness.
        """
        if self._conversation is None:
            self._conversation = Conversation(
                self.machine or self.make_session(),
                self.dialect,
                self.carrier or self.socket,
                self.providers(),
                limits=self.limits,
                observe=self.facts.append,
                recording=self.recording,
            )
        return self._conversation

    def make_session(self) -> Machine:
        """Make the machine that the conversation drives, when none was given."""
        return Session(
            self.settings,
            self.limits,
            audio_shows_life=self.dialect.audio_shows_life,
            fallback_message=self.apology,
            agent=self.agent,
            interrupt_by_voice=self.interrupt_by_voice,
            prepares_replies=as_provider(self.model).can_prepare,
        )

    def providers(self) -> SessionProviders:
        """Return who serves the conversation. Override it to put something around the
        providers, such as a chain of fallbacks.
        """
        model, knowledge = self.model, None
        if self.search is not None:
            knowledge = SearchAhead(self.search, may_search=lambda: not self.reads.late)
            model = InformedModel(
                model, knowledge, url_of=lambda found: found.source_id, keeps_marks=False
            )
        return SessionProviders(
            recognizer=self.recognizer,
            models=lambda _: model,
            synthesizer=self.synthesizer,
            threads=self.encoding_threads,
            decoding=self.decoding,
            detector=self.detector,
            reads=self.reads,
            tool_servers=self.tool_servers,
            drawings=self.drawings,
            knowledge=knowledge,
        )

    @property
    def encoding_threads(self) -> EncodingThreads:
        """The threads that encode replies: ``threads``, or the harness's own."""
        if self.threads is not None:
            return self.threads
        if self._own_threads is None:
            self._own_threads = EncodingThreads()
        return self._own_threads

    @property
    def open_streams(self) -> int:
        """How many streams of the scripted providers have not ended."""
        return sum(
            provider.open
            for provider in (self.recognizer, self.model, self.synthesizer)
            if isinstance(provider, ScriptedRecognizer | ScriptedModel | ScriptedSynthesizer)
        )

    async def __aenter__(self) -> Self:
        """Start the conversation. Raises ``RuntimeError`` the second time."""
        if self._running is not None:
            raise RuntimeError("a harness serves one conversation: make another one")
        self._tasks_before = asyncio.all_tasks()
        self._running = asyncio.get_running_loop().create_task(self.conversation.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the conversation, and unless the test has failed check what it left."""
        await self.close()
        if error is None:
            left = asyncio.all_tasks() - self._tasks_before
            if left:
                raise AssertionError(f"tasks outlive their conversation: {left}")
            if self.open_streams:
                raise AssertionError(f"{self.open_streams} streams outlive their conversation")

    async def close(self) -> None:
        """Disconnect the client and wait until the conversation has ended.

        Raises what ended the conversation, if it failed, and ``TimeoutError`` when it
        takes longer than ``close_s``. Cancelling cancels the conversation, too.
        """
        try:
            if self.carrier is not None:
                self.carrier.abort()
            else:
                self.socket.disconnect()
            if self._running is not None:
                async with asyncio.timeout(self.close_s):
                    await self._running
        finally:
            if self._own_threads is not None:
                self._own_threads.close()

    # --- what the client does ---------------------------------------------------------

    def send(self, command: AnyCommand) -> None:
        """Send a command.

        Raises ``TypeError`` unless the dialect is a ``DirectDialect``.
        """
        if not isinstance(self.dialect, DirectDialect):
            name = type(self.dialect).__name__
            raise TypeError(f"{name} takes no commands: send its protocol's frames, send_frame")
        self.send_frame(CommandFrame(command))

    def send_frame(self, frame: Frame) -> None:
        """Send a frame of the dialect."""
        self.socket.send_from_client(frame)

    def send_audio(self, pcm: bytes) -> None:
        """Send audio, s16le mono at 16 kHz, in frames of 100 ms, all at once."""
        for start in range(0, len(pcm), FRAME_BYTES):
            self.send_frame(pcm[start : start + FRAME_BYTES])

    # --- the client's messages --------------------------------------------------------

    @property
    def frames(self) -> list[Frame]:
        """All frames that the client was sent. ``socket.sent`` has their times, too."""
        return [sent.frame for sent in self.socket.sent]

    @property
    def notices(self) -> list[Notice]:
        """All notices that the client was sent by a ``DirectDialect``. What was taken
        back because its reply was stopped is not among them.
        """
        return [frame.notice for frame in self.frames if isinstance(frame, NoticeFrame)]

    def of(self, kind: type[N]) -> list[N]:
        """Return the notices of a kind."""
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def times_s(self, kind: type[Any]) -> list[float]:
        """Return when each notice of a kind was sent, in seconds of the loop's
        clock.
        """
        return [
            sent.at_s
            for sent in self.socket.sent
            if isinstance(sent.frame, NoticeFrame) and isinstance(sent.frame.notice, kind)
        ]

    async def notice(self, kind: type[N], count: int = 1) -> N:
        """Wait until ``count`` notices of a kind were sent; return the last of them.

        Raises what ``until`` raises.
        """
        await self.until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def until(self, condition: Callable[[], object], within_s: float = 100) -> None:
        """Wait until ``condition()`` is true.

        Raises ``TimeoutError`` when it is not within ``within_s`` seconds. Cancelling
        stops the wait and leaves the conversation as it is.
        """
        try:
            async with asyncio.timeout(within_s):
                while not condition():  # noqa: ASYNC110 - anything may make it true
                    await asyncio.sleep(self.poll_s)
        except TimeoutError:
            last = [type(notice).__name__ for notice in self.notices[-5:]] or self.frames[-5:]
            raise TimeoutError(
                f"the condition is not true after {within_s} s; last sent: {last}"
            ) from None


@dataclass(kw_only=True)
class ScriptedHarness(ConversationHarness):
    """A harness whose providers are all scripted, for tests that look at what each of
    them was asked.
    """

    recognizer: ScriptedRecognizer = field(default_factory=ScriptedRecognizer)
    model: ScriptedModel = field(default_factory=ScriptedModel)
    synthesizer: ScriptedSynthesizer = field(default_factory=ScriptedSynthesizer)
