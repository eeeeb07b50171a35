"""Mounts the endpoints of dialects on the server's ports: identifies, authorises and
admits each connection, and runs its conversation.

WebSockets and plain TCP connections of all protocols take the same path.
"""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from aiohttp import web

from voicechat.agents import Agents, Arrival
from voicechat.audio.speech_level import VoiceLevels
from voicechat.dialects.base import (
    Caller,
    Connection,
    Dialect,
    Endpoint,
    Frame,
    Handshake,
    Kind,
    Refused,
)
from voicechat.dialects.drawings import Drawing
from voicechat.errors import AdmissionError, ConfigError, RemoteProtocolError, Status
from voicechat.names import DEFAULT, combined_notes
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import SpeechSynthesizer
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.conversation import Conversation, SessionProviders
from voicechat.runtime.drawing import SessionDrawings
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.read_scheduler import ReadScheduler
from voicechat.runtime.resume import ResumableSocket
from voicechat.runtime.services import Found, Services
from voicechat.runtime.session_tools import no_tool_servers
from voicechat.runtime.socket import Control, Ping, Pong, Socket
from voicechat.runtime.tasks import SessionTasks
from voicechat.runtime.wall_clock import local_time, unix_s
from voicechat.server.admission import DRAIN_GRACE_S, Admission
from voicechat.server.auth import (
    SECRET_PARAMETERS,
    SECRET_PROTOCOL,
    Principal,
    offered_protocols,
)
from voicechat.server.auth_throttle import network_of
from voicechat.server.knowledge import AgentsKnowledge
from voicechat.server.listener import why_not
from voicechat.server.metering import metered
from voicechat.server.metric_events import MetricEvent, SessionRefused
from voicechat.server.refusal_speech import RefusalSpeech
from voicechat.server.tcp import TcpSocket
from voicechat.server.tool_servers import ClientToolServers
from voicechat.server.websocket import AiohttpSocket
from voicechat.session.agent import Agent
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.session.machine import Machine
from voicechat.session.session import Session
from voicechat.session.transcription_session import TranscriptionSession
from voicechat.session.types import Message
from voicechat.store.access import ApiEndpoint
from voicechat.voice.detector import VoiceDetector

T = TypeVar("T")

PassOn = Callable[[web.Request, str], bool]
"""Passes a connection on to the process that serves the resumable stream of that name.
Returns False if this process serves it.
"""

GREETING_S = 10.0
"""How long a caller may take to identify itself."""
MOST_GREETING = 512
"""Most connections that have not identified themselves yet."""
GREETING_OF_ADDRESS = 128
"""Most of these from one address, so that it cannot use up the slots of the others. A
telephone system has one address for all its calls, and so has a reverse proxy.
"""
_SECRET_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "sec-websocket-protocol", "x-api-key"}
)
_ACCESS = {Kind.CONVERSATION: ApiEndpoint.CONVERSATION, Kind.RECOGNITION: ApiEndpoint.RECOGNITION}


class Authorise(Protocol):
    """Authorises callers. Raises ``AdmissionError``."""

    async def __call__(self, request: web.Request, endpoint: ApiEndpoint) -> Principal:
        """Authorise a request by the key in it."""

    async def admit_key(self, key: str, address: str, endpoint: ApiEndpoint) -> Principal:
        """Authorise a caller at ``address`` by the key in its first frames."""


class DrawFor(Protocol):
    """Draws pictures for the callers of a server; see ``DrawPicture``."""

    async def __call__(self, principal: Principal, url: str, service: str, prompt: str) -> Drawing:
        """Draw a picture for a caller that reached the server at ``url``."""


class AgentMemory(Protocol):
    """The agents' memory of a caller's earlier conversations."""

    async def recall(self, key_id: str, agent: Agent) -> Agent:
        """Return the agent with its memory of the holder of that key."""

    async def remember(self, key_id: str, agent: Agent, messages: Sequence[Message]) -> None:
        """Remember a conversation that has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Settings that all sessions of a server share."""

    limits: SessionLimits
    observe: Callable[[MetricEvent], None]
    """Called with every session's metric events; must neither raise nor block."""
    detector: VoiceDetector | None = None
    """Voice detection, which must be running; None: hands-free mode is refused."""
    reads: ReadScheduler = field(default_factory=ReadScheduler)
    """Decides when the sockets are read while the event loop is late."""
    decoding: ForkServer | None = None
    """Processes that decode compressed audio; None: compressed audio is refused."""
    apology: FallbackMessage | None = None
    """The message spoken when no chat model answers."""
    interrupt_by_voice: bool = False
    """Hands-free mode: see ``[hands_free] interrupt_by``."""
    refusal_speech: RefusalSpeech = field(default_factory=RefusalSpeech)
    """The apology that refused telephone callers hear."""
    hand_over: Callable[[str, str], None] = lambda _call_id, _transfer_to: None
    """See ``Conversation``."""
    tool_servers: ClientToolServers | None = None
    """Opens tool servers that clients name; None: they are refused."""
    draw: DrawFor | None = None
    """Draws the pictures that chat models ask for; None: none are drawn."""
    public_url: Callable[[web.Request], str] = lambda _: ""
    """Returns how a client reached the server: scheme and host."""
    knowledge: AgentsKnowledge | None = None
    """What the agents know; None: nothing."""
    several: bool = False
    """Whether other processes of the server open the same TCP ports."""


@dataclass(frozen=True, slots=True)
class _RejectedCaller:
    """Why a caller's request is not acceptable."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class _SessionParts:
    """The parts of a session."""

    machine: Machine
    dialect: Dialect
    providers: SessionProviders
    agent: Agent | None = None
    """The agent that answers; None for a session without an agent."""


class Mount:
    """The endpoints of one process of a server."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        services: Services,
        admission: Admission,
        authorise: Authorise,
        conditions: Conditions,
        *,
        agents: Agents | None = None,
        memory: AgentMemory | None = None,
        pass_on: PassOn = lambda _request, _session: False,
    ) -> None:
        """Without a ``memory``, agents have no memory of earlier conversations."""
        self._memory = memory
        self._endpoints = endpoints
        self._services = services
        self._admission = admission
        self._authorise = authorise
        self._conditions = conditions
        self._agents = replace(agents or Agents(), models=services.model_names)
        self._pass_on = pass_on
        self._threads = EncodingThreads()
        self._levels: defaultdict[str, VoiceLevels] = defaultdict(VoiceLevels)
        """Voice levels by the name of the synthesiser's service."""
        self._resumable: dict[tuple[str, str, str], ResumableSocket] = {}
        self._tasks = SessionTasks(on_fault=lambda: None)
        self._greeting: Counter[str] = Counter()
        """Number of connections by address that have not identified themselves yet."""

    def routes(self) -> list[web.RouteDef]:
        """Return the WebSocket routes."""
        return [
            web.get(path, partial(self._serve_request, endpoint))
            for endpoint in self._endpoints
            for path in endpoint.paths
        ]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[dict[str, int]]:
        """Serve the endpoints that have their own TCP port while the context lasts.

        Yields the ports by the endpoints' names. Raises ConfigError when a port cannot
        be bound.
        """
        async with AsyncExitStack() as servers:
            ports = {}
            for endpoint in self._endpoints:
                if endpoint.port is not None:
                    server = await servers.enter_async_context(await self._listen(endpoint))
                    ports[endpoint.name] = int(server.sockets[0].getsockname()[1])
            yield ports

    async def _listen(self, endpoint: Endpoint) -> asyncio.Server:
        assert endpoint.port is not None
        serve = partial(self._serve_stream, endpoint)
        options = {"reuse_port": True} if self._conditions.several else {}
        try:
            return await asyncio.start_server(serve, endpoint.host, endpoint.port, **options)
        except OSError as error:
            reason = why_not(endpoint.host, endpoint.port, error)
            raise ConfigError(f"dialects.{endpoint.name}: {reason}") from error

    def time_encoders(self, report: Callable[[float], None]) -> None:
        """Measure the encoders' lag; see ``EncodingThreads.measure``."""
        self._threads.measure(report)

    @property
    def resumable(self) -> int:
        """The number of open resumable sessions."""
        return len(self._resumable)

    async def drain(self, deadline_s: float) -> None:
        """Drain the sessions as ``Admission.drain`` does, then release their shared
        resources.
        """
        self._conditions.refusal_speech.stop()
        await self._admission.drain(deadline_s)
        await self._tasks.close(DRAIN_GRACE_S)
        self._threads.close()

    # --- connections ------------------------------------------------------------------

    async def _serve_request(self, endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
        handshake = _handshake_of(request, self._conditions.public_url(request))
        socket = AiohttpSocket(self._conditions.limits, endpoint.protocols)
        response: web.StreamResponse | None = None
        try:
            caller = _identify(endpoint, handshake, ())
            # Check before redeeming the token, which works only once: the process that
            # serves the stream must redeem it.
            if (
                isinstance(caller, Caller)
                and caller.resume
                and self._pass_on(request, caller.resume)
            ):
                return web.Response()  # not sent: this process has closed its descriptor
            # The protocol identifies its callers in the first frames.
            if caller is None:
                response = await socket.open(request)
                await self._greet(endpoint, handshake, socket, request)
                await socket.linger()
                return response
            principal = await self._authorise(request, _ACCESS[endpoint.kind])
            if isinstance(caller, _RejectedCaller):
                raise AdmissionError(caller.status, caller.message)
            if caller.resume:
                resumable = self._resume(endpoint, handshake, caller, principal)
                response = await socket.open(request)
                await resumable.attach(socket, caller.received)
            else:
                agent = await self._recall(caller, principal)
                with self._admission.admitted(principal):
                    parts = self._open(endpoint, handshake, caller, principal, agent)
                    response = await socket.open(request)
                    await self._serve(parts, socket, principal)
        except AdmissionError as refusal:
            if response is None:
                if not web.WebSocketResponse().can_prepare(request):
                    self._conditions.observe(SessionRefused(refusal.status))
                    raise  # not an upgrade request: the refusal is an HTTP response
                response = await socket.open(request)
            await self._refuse(socket, self._refused(endpoint, refusal), refusal)
        await socket.linger()
        return response

    async def _serve_stream(
        self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        socket = TcpSocket(reader, writer, endpoint.framing(), self._conditions.limits)
        handshake = Handshake(peer=socket.peer)
        try:
            await self._greet(endpoint, handshake, socket, None)
        except AdmissionError as refusal:
            await self._refuse(socket, self._refused(endpoint, refusal), refusal)
        finally:
            socket.abort()

    async def _greet(
        self,
        endpoint: Endpoint,
        handshake: Handshake,
        socket: Socket,
        request: web.Request | None,
    ) -> None:
        """Wait until a caller has identified itself on the open connection, then serve
        it.
        """
        address = network_of(handshake.peer)
        if (
            self._greeting.total() >= MOST_GREETING
            or self._greeting[address] >= GREETING_OF_ADDRESS
        ):
            raise AdmissionError(
                Status.AT_CAPACITY, "too many connections have not said who they are"
            )
        self._greeting[address] += 1
        try:
            async with asyncio.timeout(GREETING_S):
                caller, frames = await _first_words(endpoint, handshake, socket)
        except TimeoutError:
            message = f"nobody said who is calling for {GREETING_S:.0f} s"
            raise AdmissionError(Status.TIMEOUT, message) from None
        finally:
            self._greeting[address] -= 1
            if not self._greeting[address]:
                del self._greeting[address]
        if caller is None:
            return  # the caller has disconnected
        try:
            await self._let_in(endpoint, handshake, socket, request, caller, frames)
        except AdmissionError as refusal:
            language = self._agents.language_of(caller.arrival)
            speech = self._conditions.refusal_speech.speech(refusal.status, language)
            refused = None if speech is None else endpoint.speak_refusal(frames, speech)
            if refused is None:
                raise
            await self._refuse(socket, refused, refusal)

    async def _let_in(
        self,
        endpoint: Endpoint,
        handshake: Handshake,
        socket: Socket,
        request: web.Request | None,
        caller: Caller,
        frames: list[Frame],
    ) -> None:
        """Serve a caller that has identified itself. Raises ``AdmissionError``."""
        access = _ACCESS[endpoint.kind]
        if endpoint.trusted:
            principal = Principal(f"dialects.{endpoint.name}", keyless=True)
        elif caller.key or request is None:
            principal = await self._authorise.admit_key(caller.key, handshake.peer, access)
        else:
            principal = await self._authorise(request, access)
        agent = await self._recall(caller, principal)
        with self._admission.admitted(principal):
            parts = self._open(endpoint, handshake, caller, principal, agent)
            await self._serve(parts, _Replayed(socket, frames), principal)

    def _refused(self, endpoint: Endpoint, refusal: AdmissionError) -> Refused:
        return endpoint.refuse(refusal.status, refusal.message, restarting=self._admission.draining)

    async def _refuse(self, socket: Socket, refused: Refused, refusal: AdmissionError) -> None:
        """Send a refused client the reason in its protocol's form.

        If the client has already disconnected, this is not an error.
        """
        self._conditions.observe(SessionRefused(refusal.status))
        try:
            await self._conditions.refusal_speech.speak(socket, refused)
            async with asyncio.timeout(self._conditions.limits.close_ms / 1000):
                for frame in refused.frames:
                    await socket.send(frame)
                await socket.close(refused.code, refusal.message)
        except (ConnectionError, TimeoutError):
            pass  # the client has disconnected or does not read
        finally:
            socket.abort()

    # --- opening sessions -------------------------------------------------------------

    async def _recall(self, caller: Caller, principal: Principal) -> Agent | None:
        """Return the caller's agent with its memory of the caller; None if there is no
        memory.
        """
        if self._memory is None:
            return None
        try:
            agent, _ = self._choose(caller, principal)
        except RemoteProtocolError:
            return None  # refused later, when the session is opened
        recalled = await self._memory.recall(principal.key_id, agent)
        return None if recalled is agent else recalled

    def _choose(self, caller: Caller, principal: Principal) -> tuple[Agent, str]:
        """Return the agent that answers, and a note for the client about the choice.

        Raises ``RemoteProtocolError``.
        """
        arrival = replace(caller.arrival, key_id=principal.key_id)
        chosen = self._agents.choose_agent(arrival)
        return chosen.agent.filled(arrival.values(local_time())), chosen.note

    def _open(
        self,
        endpoint: Endpoint,
        handshake: Handshake,
        caller: Caller,
        principal: Principal,
        recalled: Agent | None = None,
    ) -> _SessionParts:
        """Choose the agent and open the session. Raises ``AdmissionError``.

        ``recalled`` is the agent with its memory of the caller, if there is one.
        """
        try:
            if endpoint.kind is Kind.RECOGNITION:
                return self._open_recognition(endpoint, handshake, caller)
            return self._open_conversation(endpoint, handshake, caller, principal, recalled)
        except RemoteProtocolError as error:
            raise AdmissionError(error.status, error.message) from None

    def _open_conversation(
        self,
        endpoint: Endpoint,
        handshake: Handshake,
        caller: Caller,
        principal: Principal,
        recalled: Agent | None,
    ) -> _SessionParts:
        services, conditions = self._services, self._conditions
        arrival = replace(caller.arrival, key_id=principal.key_id)
        agent, note = self._choose(caller, principal)
        agent = recalled or agent
        if conditions.detector is None:
            agent = replace(agent, turn_detection=None)
        model = services.models[agent.llm]
        recognizer: Found = services.recognizer(  # type: ignore[type-arg]
            caller.recognizer_path, _service_name(caller.recognizer, agent.asr)
        )
        synthesizer = services.synthesizer(
            caller.synthesizer_path, _service_name(caller.synthesizer, agent.tts)
        )
        notes = [note, combined_notes(recognizer.resolved, synthesizer.resolved)]
        connection = Connection(
            handshake=handshake,
            epoch_s=unix_s(),
            session_id=secrets.token_hex(8),
            models=services.model_names,
            model=arrival.model or agent.name,
            configuration=principal.configuration,
            note="; ".join(filter(None, notes)),
            hands_free=conditions.detector is not None,
            pick_voice=_voice_picker(synthesizer.provider, agent.voice),
            apology=conditions.refusal_speech.apology(agent.language),
            agent=agent,
            find_agent=partial(self._find_agent, arrival),
        )
        opening = endpoint.open(connection)
        machine = Session(
            opening.settings,
            conditions.limits,
            audio_shows_life=opening.dialect.audio_shows_life,
            fallback_message=conditions.apology,
            agent=agent,
            interrupt_by_voice=conditions.interrupt_by_voice,
            prepares_replies=as_provider(model).can_prepare,
        )
        opener, draw = conditions.tool_servers, conditions.draw
        drawings = None
        if draw is not None and services.drawing_tools:
            drawings = SessionDrawings(partial(draw, principal, handshake.url))
        consultation = None
        if conditions.knowledge is not None:
            consultation = conditions.knowledge.for_conversation(
                agent, principal.project, handshake.url
            )
        providers = SessionProviders(
            recognizer=recognizer.provider,
            models=services.conversation_models(model, agent, drawings, consultation),
            synthesizer=synthesizer.provider,
            threads=self._threads,
            levels=self._levels[synthesizer.resolved.name],
            decoding=conditions.decoding,
            detector=conditions.detector,
            reads=conditions.reads,
            tool_servers=(
                no_tool_servers if opener is None else partial(opener.open, owner=principal.key_id)
            ),
            drawings=drawings,
            knowledge=None if consultation is None else consultation.ahead,
        )
        return _SessionParts(machine, opening.dialect, providers, agent)

    def _find_agent(
        self, arrival: Arrival, name: str, variables: Mapping[str, str]
    ) -> Agent | None:
        found = self._agents.find_agent(name)
        values = {**arrival.values(local_time()), **variables}
        return None if found is None else found.filled(values)

    def _open_recognition(
        self, endpoint: Endpoint, handshake: Handshake, caller: Caller
    ) -> _SessionParts:
        services = self._services
        recognizer = services.recognizer(caller.recognizer_path, caller.recognizer)
        connection = Connection(handshake=handshake, epoch_s=unix_s())
        opening = endpoint.open(connection)
        providers = SessionProviders(
            recognizer=recognizer.provider,
            models=lambda _: services.models["default"],
            synthesizer=services.synthesizers["default"],
            threads=self._threads,
            decoding=self._conditions.decoding,
            reads=self._conditions.reads,
        )
        machine = TranscriptionSession(opening.settings.input, self._conditions.limits)
        return _SessionParts(machine, opening.dialect, providers)

    async def _serve(self, parts: _SessionParts, socket: Socket, principal: Principal) -> None:
        conversation = Conversation(
            parts.machine,
            parts.dialect,
            socket,
            metered(parts.providers, principal.account),
            limits=self._conditions.limits,
            observe=self._conditions.observe,
            hand_over=self._conditions.hand_over,
        )
        await self._admission.serve_conversation(conversation, principal)
        if self._memory is not None and parts.agent is not None and parts.agent.remembers:
            assert isinstance(parts.machine, Session), "an agent converses"
            messages = parts.machine.messages
            remembering = self._memory.remember(principal.key_id, parts.agent, messages)
            _ = self._tasks.spawn(remembering, "remembering")

    # --- sessions that outlive their connection ---------------------------------------

    def _resume(
        self, endpoint: Endpoint, handshake: Handshake, caller: Caller, principal: Principal
    ) -> ResumableSocket:
        """Return the session of that name, which is opened if there is none.

        It survives the loss of its connection.
        """
        name = (f"{principal.key_id}/{principal.holder}", principal.project, caller.resume)
        if name not in self._resumable:
            parts = self._open(endpoint, handshake, caller, principal)
            self._admission.admit_session(principal)
            socket = ResumableSocket(self._conditions.limits, endpoint.resumed)
            self._resumable[name] = socket
            serving = self._serve_resumable(principal, name, socket, parts)
            _ = self._tasks.spawn(serving, "resumable-session")
        return self._resumable[name]

    async def _serve_resumable(
        self,
        principal: Principal,
        name: tuple[str, str, str],
        socket: ResumableSocket,
        parts: _SessionParts,
    ) -> None:
        try:
            await self._serve(parts, socket, principal)
        finally:
            self._admission.release_session(principal)
            del self._resumable[name]
            socket.abort()


class _Replayed:
    """A ``Socket`` that first repeats frames that were already received."""

    def __init__(self, socket: Socket, frames: Sequence[Frame]) -> None:
        self._socket = socket
        self._frames = list(frames)
        self.send = socket.send
        self.drained = socket.drained
        self.send_now = socket.send_now
        self.ping = socket.ping
        self.close = socket.close
        self.abort = socket.abort
        self.pause_reading = socket.pause_reading
        self.resume_reading = socket.resume_reading

    async def receive(self) -> Frame | Control | Ping:
        """Receive the next of the first frames, then the socket's."""
        return self._frames.pop(0) if self._frames else await self._socket.receive()

    def offer(self, take: Callable[[Frame], bool]) -> None:
        """Offer the socket's frames to ``take``, once the first frames have been
        received.

        Earlier ones would overtake them.
        """
        self._socket.offer(lambda frame: not self._frames and take(frame))

    @property
    def has_room(self) -> bool:
        """Whether the socket has room for more."""
        return self._socket.has_room


def _identify(
    endpoint: Endpoint, handshake: Handshake, frames: Sequence[Frame]
) -> "Caller | _RejectedCaller | None":
    """Return the caller, None while it is not known, or why the request is not
    acceptable.
    """
    try:
        return endpoint.identify(handshake, frames)
    except RemoteProtocolError as error:
        # Not the error itself: kept in a frame of its own traceback it would be a
        # reference cycle.
        return _RejectedCaller(error.status, error.message)


async def _first_words(
    endpoint: Endpoint, handshake: Handshake, socket: Socket
) -> tuple[Caller | None, list[Frame]]:
    """Receive frames until the caller is identified; None when the connection is
    lost.
    """
    frames: list[Frame] = []
    while (caller := _identify(endpoint, handshake, frames)) is None:
        if len(frames) >= endpoint.greeting_frames:
            message = "the first frames do not say who is calling"
            raise AdmissionError(Status.MALFORMED, message)
        frame = await socket.receive()
        if frame is Control.CLOSED:
            return None, frames
        if isinstance(frame, Ping):
            await socket.send(Pong(frame.payload))
        elif not isinstance(frame, Control):
            frames.append(frame)
    if isinstance(caller, _RejectedCaller):
        raise AdmissionError(caller.status, caller.message)
    return caller, frames


def _handshake_of(request: web.Request, url: str) -> Handshake:
    """Return the request as a handshake, without secrets. ``url``: how the client
    reached the server.
    """
    return Handshake(
        url=url,
        variables=dict(request.match_info),
        query={key: value for key, value in request.query.items() if key not in SECRET_PARAMETERS},
        headers={
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower() not in _SECRET_HEADERS
        },
        protocols=tuple(
            name for name in offered_protocols(request) if not name.startswith(SECRET_PROTOCOL)
        ),
        peer=request.remote or "",
    )


def _service_name(by_client: str, by_agent: str) -> str:
    """Return the service to use.

    ``default`` means the agent's own, because protocols make every client send it.
    """
    return by_agent if by_client in ("", DEFAULT) else by_client


def _voice_picker(synthesizer: SpeechSynthesizer, own: str) -> Callable[[str], str]:
    """Return a function that maps a requested voice to an existing one: itself, the
    agent's ``own``, or the first.
    """
    voices = synthesizer.voices
    if not voices:
        return lambda wanted: wanted or own
    otherwise = own if own in voices else voices[0]
    return lambda wanted: wanted if wanted in voices else otherwise
