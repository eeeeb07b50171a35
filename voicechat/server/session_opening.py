"""Opens the session of a caller who was identified and admitted: chooses the agent and
the services, and builds the parts of the session.
"""

import secrets
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from aiohttp import web

from voicechat.agents import Agents, Arrival
from voicechat.audio.speech_level import VoiceLevels
from voicechat.dialects.base import (
    Caller,
    Connection,
    Dialect,
    Endpoint,
    Handshake,
    Kind,
)
from voicechat.dialects.drawings import Drawing
from voicechat.errors import AdmissionError, RemoteProtocolError
from voicechat.names import DEFAULT, combined_notes
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import SpeechSynthesizer
from voicechat.providers.wrapping import as_provider
from voicechat.records.setup import SessionSetup
from voicechat.runtime.conversation import SessionProviders
from voicechat.runtime.drawing import SessionDrawings
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.read_scheduler import ReadScheduler
from voicechat.runtime.services import Found, Services
from voicechat.runtime.session_tools import no_tool_servers
from voicechat.runtime.wall_clock import local_time, unix_s
from voicechat.server.auth import Principal
from voicechat.server.knowledge import AgentsKnowledge
from voicechat.server.metric_events import MetricEvent
from voicechat.server.record_keeping import RecordedCaller, RecordKeeper
from voicechat.server.refusal_speech import RefusalSpeech
from voicechat.server.tool_servers import ClientToolServers
from voicechat.server.websocket import AiohttpSocket, UpgradedSocket
from voicechat.session.agent import Agent
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.session.machine import Machine
from voicechat.session.session import Session
from voicechat.session.transcription_session import TranscriptionSession
from voicechat.session.types import Message
from voicechat.voice.detector import VoiceDetector


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
    records: RecordKeeper | None = None
    """Records conversations, and counts what sessions use; None: nothing does."""
    make_socket: Callable[[SessionLimits, Sequence[str]], UpgradedSocket] = AiohttpSocket
    """Makes the socket of a request to an endpoint with these subprotocols."""
    several: bool = False
    """Whether other processes of the server open the same TCP ports."""


@dataclass(frozen=True, slots=True)
class SessionParts:
    """The parts of a session."""

    machine: Machine
    dialect: Dialect
    providers: SessionProviders
    caller: RecordedCaller
    """For the record, and for what the session uses."""
    agent: Agent | None = None
    """The agent that answers; None for a session without an agent."""
    setup: SessionSetup | None = None
    """What the machine begins with; None: it cannot be recorded."""


class SessionOpener:
    """Opens the sessions of one process."""

    def __init__(
        self,
        services: Services,
        agents: Agents,
        conditions: Conditions,
        memory: AgentMemory | None = None,
    ) -> None:
        """Without a ``memory``, agents have no memory of earlier conversations."""
        self._services = services
        self._agents = replace(agents, models=services.model_names)
        self._conditions = conditions
        self._memory = memory
        self._threads = EncodingThreads()
        self._levels: defaultdict[str, VoiceLevels] = defaultdict(VoiceLevels)
        """Voice levels by the name of the synthesiser's service."""

    def language_of(self, arrival: Arrival) -> str:
        """Return the language of the agent that such a caller reaches."""
        return self._agents.language_of(arrival)

    def time_encoders(self, report: Callable[[float], None]) -> None:
        """Measure the encoders' lag; see ``EncodingThreads.measure``."""
        self._threads.measure(report)

    def close(self) -> None:
        """Release what the sessions share, once all of them have ended."""
        self._threads.close()

    async def recall(self, caller: Caller, principal: Principal) -> Agent | None:
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

    def open(
        self,
        endpoint: Endpoint,
        handshake: Handshake,
        caller: Caller,
        principal: Principal,
        recalled: Agent | None = None,
    ) -> SessionParts:
        """Choose the agent and open the session. Raises ``AdmissionError``.

        ``recalled`` is the agent with its memory of the caller, if there is one.
        """
        try:
            if endpoint.kind is Kind.RECOGNITION:
                return self._open_recognition(endpoint, handshake, caller, principal)
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
    ) -> SessionParts:
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
        setup = SessionSetup(
            settings=opening.settings,
            limits=conditions.limits,
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
        recorded = _recorded(endpoint, caller, principal, agent)
        return SessionParts(setup.open(), opening.dialect, providers, recorded, agent, setup)

    def _find_agent(
        self, arrival: Arrival, name: str, variables: Mapping[str, str]
    ) -> Agent | None:
        found = self._agents.find_agent(name)
        values = {**arrival.values(local_time()), **variables}
        return None if found is None else found.filled(values)

    def _open_recognition(
        self, endpoint: Endpoint, handshake: Handshake, caller: Caller, principal: Principal
    ) -> SessionParts:
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
        recorded = _recorded(endpoint, caller, principal, None)
        return SessionParts(machine, opening.dialect, providers, recorded)

    def remembering(
        self, parts: SessionParts, principal: Principal
    ) -> Coroutine[object, object, None] | None:
        """Return the work of remembering a conversation that has ended; None if its
        agent has no memory.
        """
        if self._memory is None or parts.agent is None or not parts.agent.remembers:
            return None
        assert isinstance(parts.machine, Session), "an agent converses"
        return self._memory.remember(principal.key_id, parts.agent, parts.machine.messages)


def _recorded(
    endpoint: Endpoint, caller: Caller, principal: Principal, agent: Agent | None
) -> RecordedCaller:
    return RecordedCaller(
        project=principal.project,
        key_id=principal.key_id,
        person=principal.holder,
        caller=caller.arrival.caller,
        device=caller.arrival.device,
        agent="" if agent is None else agent.name,
        dialect=endpoint.name or "".join(endpoint.paths[:1]).rpartition("/")[2],
        mode="none" if agent is None else agent.record,
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
