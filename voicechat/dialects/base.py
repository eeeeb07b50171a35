"""What a dialect is: one side of a conversation's protocol, as a value machine. No I/O,
no clock.

An ``Endpoint`` says where a protocol is spoken and who is calling; it opens a
``Dialect`` for each connection. A dialect turns its client's frames into commands of
the session, and the session's notices into frames. It may keep state, answer by itself,
send frames that nothing asked for, and ask to be woken at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar, TypeAlias

from voicechat.agents import Arrival
from voicechat.dialects.tool_servers import ToolNews, ToolRequest
from voicechat.errors import Status
from voicechat.names import ServiceNames
from voicechat.session.agent import Agent
from voicechat.session.commands import AnyCommand
from voicechat.session.events import AudioReceived
from voicechat.session.notices import Ended, Ending, Notice
from voicechat.session.types import Settings

Frame: TypeAlias = str | bytes
"""One message of a connection: text or binary."""


@dataclass(frozen=True, slots=True)
class Tell:
    """A frame for the client."""

    frame: Frame
    kept: bool = False
    """True: a frame about a reply that is sent even if that reply is stopped while the
    frame waits. For protocols in which what was begun must be ended in order.
    """


Reaction: TypeAlias = AnyCommand | AudioReceived | Tell | ToolRequest
"""What a dialect answers with: commands and audio for the session, frames for the
client, and what is to be asked of tool servers that the client has named, in order.
"""


CLOSE_CODES: Mapping[Ending, int] = {
    Ending.FINISHED: 1000,
    Ending.GOODBYE: 1000,
    Ending.TRANSFERRED: 1000,
    Ending.ABSENT: 1000,
    Ending.VIOLATION: 1008,
    Ending.ACCESS: 1008,
    Ending.FAULT: 1011,
    Ending.AUDIO: 1011,
    Ending.RESTART: 1012,
    Ending.NOT_READING: 1013,
}
"""The WebSocket close code of each end of a session (RFC 6455, section 7.4.1)."""


class Dialect(ABC):
    """One connection's side of the protocol. Times are milliseconds since the
    connection was opened.
    """

    bare_audio: bool = False
    """True: from now on every binary frame that is not empty is audio as it is, and
    need not be shown to ``receive``. It may change; a dialect that wants to see the
    first frame says so afterwards.
    """
    framed_audio: bool = False
    """True: ``audio_in`` knows the frames that hold nothing but audio. It may change.
    """
    audio_shows_life: bool = True
    """False: a client that only sends audio counts as absent."""
    call_id: str = ""
    """The other side's name for the connection. By it that side asks where a
    conversation goes on that the agent has passed on; empty: it cannot ask.
    """

    def open(self, now_ms: int) -> Iterable[Reaction]:
        """The connection is admitted."""
        return ()

    @abstractmethod
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        """The client said ``frame``. Never raises for anything that a client may
        say.
        """

    @abstractmethod
    def notify(self, notice: Notice, now_ms: int) -> Iterable[Reaction]:
        """Write the frames of a notice of the session. When a reply is stopped, its
        frames that have not been sent yet are dropped.
        """

    def audio_in(self, frame: Frame) -> bytes | None:
        """Return the audio of a frame, which then need not be shown to ``receive``;
        None: it holds something else, or nothing. Never raises. Asked only while there
        is ``framed_audio``.
        """
        return None

    def note_audio(self) -> None:  # noqa: B027 - most dialects have nothing to note
        """Bare or framed audio has come since the last call of ``receive``; called once
        before the next one.
        """

    def hear_tools(self, news: ToolNews, now_ms: int) -> Iterable[Reaction]:
        """A tool server has answered what the dialect asked of it."""
        return ()

    def pong(self, now_ms: int) -> Iterable[Reaction]:
        """The transport's own sign of life has come, where it has one."""
        return ()

    def deadline_ms(self) -> int | None:
        """When ``wake`` is wanted; asked again after each call of another method."""
        return None

    def wake(self, now_ms: int) -> Iterable[Reaction]:
        """The time has come."""
        return ()

    def close_code(self, ended: Ended) -> int:
        """Return the WebSocket close code for the end of the session; plain TCP has
        none.
        """
        return CLOSE_CODES[ended.ending]


class Framing(ABC):
    """How frames are cut out of a plain byte stream. One object serves one
    connection.
    """

    @abstractmethod
    def push(self, data: bytes) -> Sequence[Frame]:
        """Take bytes as they come; give the frames that are complete.

        Raises ``RemoteProtocolError`` when they cannot be frames of this protocol, or
        are too large: what is kept of an unfinished frame must be bounded.
        """

    @abstractmethod
    def write(self, frame: Frame) -> bytes:
        """Write one frame as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What is known of a connection before anything was said on it. Names are in small
    letters.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    """What stood in the path, by the names of the endpoint's ``paths``."""
    query: Mapping[str, str] = field(default_factory=dict)
    """The request's query parameters, without any key or token."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The request's headers, without any key or token."""
    protocols: tuple[str, ...] = ()
    """Subprotocols that the client offers."""
    peer: str = ""
    """The network address that it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who a connection says it is, and what it asks for."""

    arrival: Arrival = field(default_factory=Arrival)
    """By what an agent is chosen."""
    recognizer: str = ""
    """The recogniser that it asks for; empty: the agent's. The next one likewise."""
    synthesizer: str = ""
    recognizer_path: str = "asr"
    """What the protocol calls that parameter; refusals begin with it."""
    synthesizer_path: str = "tts"
    key: str = field(default="", repr=False)
    """A key that came in a frame; empty: it came with the request, or there is none."""
    resume: str = ""
    """Name of a resumable session; empty: the connection cannot be resumed."""
    received: int | None = None
    """Results that a returning client says it has; None: it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What the server tells a dialect about a connection that is admitted."""

    handshake: Handshake = field(default_factory=Handshake)
    epoch_s: float = 0.0
    """Unix time of the session's millisecond 0."""
    session_id: str = ""
    """Random; makes ids unique."""
    models: ServiceNames = field(default_factory=ServiceNames)
    """Chat models that may be asked for by name."""
    model: str = "default"
    """The chat model or agent that the connection asked for, by the name that it used.
    """
    configuration: str = ""
    """What the session is to begin with, as the protocol writes it, if the client's
    token is bound to that.
    """
    note: str = ""
    """What the client is to be told about its names; see ``names.ResolvedName.note``.
    """
    hands_free: bool = True
    """Whether the server can detect the ends of turns itself."""
    pick_voice: Callable[[str], str] = lambda name: name
    """Maps a wished-for voice name to one that the service has."""
    apology: Callable[[int], bytes] | None = None
    """What is said where a turn has failed and nothing else can be: s16le mono, at a
    rate in Hz; None: nothing.
    """
    agent: Agent = field(default_factory=Agent)
    """Who answers, with its variables filled in."""
    find_agent: Callable[[str, Mapping[str, str]], Agent | None] = lambda name, variables: None
    """Returns another agent by name or alias, with these variables filled in besides
    the connection's; None: there is none.
    """


def with_agent(settings: Settings, agent: Agent) -> Settings:
    """Lay an agent's own over settings: its filler, and its instructions and its turn
    detection where they have none.
    """
    chat = settings.chat
    if (agent.instructions or agent.instructions_by_language) and not chat.instructions:
        chat = replace(
            chat,
            instructions=agent.instructions,
            instructions_by_language=agent.instructions_by_language,
        )
    if agent.filler is not None:
        chat = replace(chat, filler=agent.filler, filler_after_ms=agent.filler_after_ms)
    detection = settings.turn_detection or agent.turn_detection
    return replace(settings, chat=chat, turn_detection=detection)


class Kind(Enum):
    """What a connection is for. A key's scope says which of them it opens."""

    CONVERSATION = "conversation"
    RECOGNITION = "recognition"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a session begins."""

    dialect: Dialect
    settings: Settings = field(default_factory=Settings)
    """Of a recognition only ``input`` counts, and it does not change."""


class Endpoint(ABC):
    """Where a protocol is spoken. One object serves all connections, and keeps nothing
    of any.
    """

    name: str = ""
    """What the configuration calls it; messages name it so."""
    kind: ClassVar[Kind] = Kind.CONVERSATION
    paths: tuple[str, ...] = ()
    """Paths of a WebSocket on the server's own port, with variables in braces."""
    port: int | None = None
    """A plain TCP port of its own; 0: any free one. Then there is a ``framing``."""
    host: str = "127.0.0.1"
    """The address that the port is opened on."""
    protocols: tuple[str, ...] = ()
    """Subprotocols of the WebSocket, the preferred one first."""
    trusted: bool = False
    """True: callers need no key. For networks that only trusted devices can reach."""
    greeting_frames: int = 0
    """Frames that may have to come before ``identify`` knows its caller; 0: the
    handshake says all.
    """

    def framing(self) -> Framing:
        """Make what cuts one TCP connection into frames."""
        raise NotImplementedError("an endpoint with a port has a framing")

    @abstractmethod
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller | None:
        """Say who is calling; None: more frames must come. The frames are also given to
        the dialect.

        Raises ``RemoteProtocolError`` when that is not acceptable.
        """

    @abstractmethod
    def open(self, connection: Connection) -> Opening:
        """Open the dialect of an admitted connection."""

    @abstractmethod
    def refuse(self, status: Status, message: str, *, restarting: bool) -> "Refused":
        """Return the frames and the close code that a refused client gets.
        ``restarting``: the server is about to stop.
        """

    def speak_refusal(
        self, frames: Sequence[Frame], speech: Callable[[int], bytes]
    ) -> "Refused | None":
        """Return what a client hears who is refused after it has said ``frames``, in a
        protocol that carries a voice and no words; None: ``refuse`` says it.

        ``speech`` gives the apology as s16le mono, at a rate in Hz.
        """
        return None

    def resumed(self, offset_bytes: int) -> Frame:
        """The first frame of each connection of a resumable session: which byte of
        audio is expected next.
        """
        raise NotImplementedError("this protocol has no resumable sessions")


@dataclass(frozen=True, slots=True)
class Refused:
    """How a connection is turned away."""

    frames: tuple[Frame, ...] = ()
    code: int = 1008
    """The transport's closing code, where it has codes."""
    spoken: tuple[tuple[Frame, ...], ...] = ()
    """Audio that is sent before ``frames``, a group each ``pause_ms``."""
    pause_ms: int = 0
