"""What a dialect is: one side of a conversation's protocol, as a value machine. No I/O,
no clock.

An ``Endpoint`` says where a protocol is served and who is calling, and opens a
``Dialect`` for each connection. A dialect turns its client's frames into commands of
the session, and the session's notices into frames. It may keep state, answer by itself,
send frames that nothing asked for, and ask to be called at a given time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar, TypeAlias

from voicechat.agents import Arrival
from voicechat.dialects.drawings import Drawing
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
    """True: the frame is about a reply and is sent even if that reply is stopped while
    the frame waits. For protocols in which everything that was opened must be closed in
    order.
    """


Reaction: TypeAlias = AnyCommand | AudioReceived | Tell | ToolRequest
"""What a dialect answers with: commands and audio for the session, frames for the
client, and requests to tool servers that the client has named, in order.
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
    """True: from now on every non-empty binary frame is plain audio and need not be
    passed to ``receive``. The value may change: a dialect that wants to see the first
    frame sets it after that frame.
    """
    framed_audio: bool = False
    """True: ``audio_in`` recognises the frames that hold nothing but audio. The value
    may change.
    """
    audio_shows_life: bool = True
    """False: a client that only sends audio counts as absent."""
    call_id: str = ""
    """The other side's id of the connection. With this id the other side asks where to
    send a conversation that the agent has transferred. Empty: it cannot ask.
    """
    announces_end: bool = False
    """True: the client gets ``GoingAway``, and some time to leave by itself before the
    server closes the connection.
    """
    shows_drawings: bool = False
    """True: ``show_drawing`` sends the client a picture that was drawn for it."""

    def open(self, now_ms: int) -> Iterable[Reaction]:
        """The connection is admitted."""
        return ()

    @abstractmethod
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        """Handle a frame of the client. Never raises for anything that a client may
        send.
        """

    @abstractmethod
    def notify(self, notice: Notice, now_ms: int) -> Iterable[Reaction]:
        """Return the frames for a notice of the session. When a reply is stopped, its
        frames that have not been sent yet are dropped.
        """

    def audio_in(self, frame: Frame) -> bytes | None:
        """Return the audio of a frame, which then need not be passed to ``receive``;
        None if the frame holds anything else, or nothing. Never raises. Called only
        while ``framed_audio`` is true.
        """
        return None

    def note_audio(self) -> None:  # noqa: B027 - most dialects have nothing to note
        """Plain or framed audio has arrived since the last call of ``receive``. Called
        once before the next call of ``receive``.
        """

    def hear_tools(self, news: ToolNews, now_ms: int) -> Iterable[Reaction]:
        """A tool server has answered what the dialect asked of it."""
        return ()

    def show_drawing(self, drawing: Drawing, now_ms: int) -> Iterable[Reaction]:
        """A picture that the chat model had drawn is finished, or could not be made.
        This may be long after the reply that asked for it.
        """
        return ()

    def pong(self, now_ms: int) -> Iterable[Reaction]:
        """The transport has received its own sign of life (for example a pong)."""
        return ()

    def deadline_ms(self) -> int | None:
        """Return when to call ``wake``; None: not at all. Asked again after each call
        of another method.
        """
        return None

    def wake(self, now_ms: int) -> Iterable[Reaction]:
        """The time that ``deadline_ms`` returned has come."""
        return ()

    def close_code(self, ended: Ended) -> int:
        """Return the WebSocket close code for the end of the session; plain TCP has
        none.
        """
        return CLOSE_CODES[ended.ending]


class Framing(ABC):
    """How frames are cut out of a byte stream. One object serves one connection."""

    @abstractmethod
    def push(self, data: bytes) -> Sequence[Frame]:
        """Take bytes in any division; return the frames that are complete.

        Raises ``RemoteProtocolError`` when the bytes cannot be frames of this protocol,
        or a frame is too large: the memory for an unfinished frame must be bounded.
        """

    @abstractmethod
    def write(self, frame: Frame) -> bytes:
        """Write one frame as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What is known of a connection before its first frame. Names are in lower case."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """The variables in the path, by the names in the endpoint's ``paths``."""
    query: Mapping[str, str] = field(default_factory=dict)
    """The request's query parameters, without any key or token."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The request's headers, without any key or token."""
    protocols: tuple[str, ...] = ()
    """Subprotocols that the client offers."""
    peer: str = ""
    """The client's network address."""
    url: str = ""
    """How the client reached the server: scheme and host of a URL; empty: not by HTTP.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who a connection says it is, and what it asks for."""

    arrival: Arrival = field(default_factory=Arrival)
    """What the agent is chosen by."""
    recognizer: str = ""
    """The recogniser that it asks for; empty: the agent's. ``synthesizer`` likewise."""
    synthesizer: str = ""
    recognizer_path: str = "asr"
    """What the protocol calls that parameter; error messages begin with it."""
    synthesizer_path: str = "tts"
    key: str = field(default="", repr=False)
    """A key that came in a frame. Empty: it came with the request, or there is none."""
    resume: str = ""
    """Name of a resumable session; empty: the connection cannot be resumed."""
    received: int | None = None
    """The number of results that a returning client reports to have; None: it reports
    none.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What the server tells a dialect about a connection that is admitted."""

    handshake: Handshake = field(default_factory=Handshake)
    epoch_s: float = 0.0
    """Unix time of the session's millisecond 0."""
    session_id: str = ""
    """Random; makes ids unique."""
    models: ServiceNames = field(default_factory=ServiceNames)
    """The chat models that a client may ask for by name."""
    model: str = "default"
    """The chat model or agent that the connection asked for, under the name that it
    used.
    """
    configuration: str = ""
    """The configuration that the session must begin with, in the protocol's own form,
    if the client's token is bound to one.
    """
    note: str = ""
    """What to report to the client about the names it used; see
    ``names.ResolvedName.note``.
    """
    hands_free: bool = True
    """Whether the server can detect the ends of turns itself."""
    pick_voice: Callable[[str], str] = lambda name: name
    """Maps the voice name that a client asks for to one that the service has."""
    apology: Callable[[int], bytes] | None = None
    """Speech for a turn that has failed without any other audio: returns s16le mono at
    the given rate in Hz. None: there is no such speech.
    """
    agent: Agent = field(default_factory=Agent)
    """Who answers, with its variables filled in."""
    find_agent: Callable[[str, Mapping[str, str]], Agent | None] = lambda name, variables: None
    """Returns another agent by name or alias, with these variables filled in besides
    the connection's; None if there is no such agent.
    """


def wants_announcement(handshake: Handshake) -> bool:
    """Return whether a client asks, by the query's ``going_away=1``, to be told that
    the server stops.
    """
    return handshake.query.get("going_away") == "1"


def with_agent(settings: Settings, agent: Agent) -> Settings:
    """Apply an agent's own settings: its filler always, its instructions and turn
    detection only where ``settings`` have none.
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
    """What a connection is for. A key's scope lists the kinds it may open."""

    CONVERSATION = "conversation"
    RECOGNITION = "recognition"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a session begins."""

    dialect: Dialect
    settings: Settings = field(default_factory=Settings)
    """For a recognition only ``input`` is used, and it does not change."""


class Endpoint(ABC):
    """Where a protocol is served. One object serves all connections and keeps no state
    of any of them.
    """

    name: str = ""
    """The endpoint's name in the configuration; messages use this name."""
    kind: ClassVar[Kind] = Kind.CONVERSATION
    paths: tuple[str, ...] = ()
    """WebSocket paths on the server's own port, with variables in braces."""
    port: int | None = None
    """A TCP port of its own; 0: any free port; None: none. An endpoint with a port has
    a ``framing``.
    """
    host: str = "127.0.0.1"
    """The address that the port listens on."""
    protocols: tuple[str, ...] = ()
    """Subprotocols of the WebSocket, the preferred one first."""
    trusted: bool = False
    """True: callers need no key. For networks that only trusted devices can reach."""
    greeting_frames: int = 0
    """The most frames that ``identify`` may need to know the caller; 0: the handshake
    is enough.
    """

    def framing(self) -> Framing:
        """Return a new object that cuts one TCP connection into frames."""
        raise NotImplementedError("an endpoint with a port has a framing")

    @abstractmethod
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller | None:
        """Return who is calling; None: more frames are needed. The frames are also
        passed to the dialect.

        Raises ``RemoteProtocolError`` when the caller's request is not acceptable.
        """

    @abstractmethod
    def open(self, connection: Connection) -> Opening:
        """Open the dialect of an admitted connection."""

    @abstractmethod
    def refuse(self, status: Status, message: str, *, restarting: bool) -> "Refused":
        """Return the frames and the close code for a client that is refused.
        ``restarting``: the server is about to stop.
        """

    def speak_refusal(
        self, frames: Sequence[Frame], speech: Callable[[int], bytes]
    ) -> "Refused | None":
        """Return the audio for a client that is refused after it has sent ``frames``,
        in a protocol that carries audio and no messages. None: use ``refuse``.

        ``speech`` returns the apology as s16le mono, at a rate in Hz.
        """
        return None

    def resumed(self, offset_bytes: int) -> Frame:
        """Return the first frame of each connection of a resumable session: it says
        which byte of audio the server expects next.
        """
        raise NotImplementedError("this protocol has no resumable sessions")


@dataclass(frozen=True, slots=True)
class Refused:
    """How a connection is refused."""

    frames: tuple[Frame, ...] = ()
    code: int = 1008
    """The transport's close code, where it has codes."""
    spoken: tuple[tuple[Frame, ...], ...] = ()
    """Audio that is sent before ``frames``, one group every ``pause_ms``."""
    pause_ms: int = 0
