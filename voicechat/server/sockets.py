"""The WebSocket routes: who is admitted, with which services, and how all of them end when the server stops."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from aiohttp import web

from voicechat.config import CompatConfig
from voicechat.errors import AdmissionError, AtCapacityError, RemoteProtocolError, Status
from voicechat.names import DEFAULT, notes
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import SpeechSynthesizer
from voicechat.runtime.conversation import Cast, Conversation
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.resume import ResumableSocket
from voicechat.runtime.services import Found, Services
from voicechat.runtime.socket import Socket
from voicechat.runtime.tasks import SessionTasks
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.auth import SECRET_PARAMETERS, Principal
from voicechat.server.figures import Level
from voicechat.server.metering import metered
from voicechat.server.pressure import CAPACITY_RETRY_S, Pressure
from voicechat.server.websocket import AiohttpSocket
from voicechat.session.apology import Apology
from voicechat.session.dictation import Dictation
from voicechat.session.effects import Answered, Fact, Request, SessionRefused
from voicechat.session.events import AccessEnded, DrainRequested, PressureChanged
from voicechat.session.limits import SessionLimits
from voicechat.session.machine import Machine
from voicechat.session.session import Session
from voicechat.session.vocabulary import ChatSettings, Settings, VoiceSettings
from voicechat.store.access import Endpoint
from voicechat.store.ledger import Ledger
from voicechat.store.places import Places
from voicechat.voice.detector import VoiceDetector
from voicechat.wire import speech_chat, stream_speech
from voicechat.wire.dialect import Dialect, Greeting

T = TypeVar("T")

PassOn = Callable[[web.Request, str], bool]
"""Hand a connection to the process that serves the resumable stream of that name; False when this process does."""

SPEECH_CHAT_PATHS = (
    "/api/open-apis/projects/{project}/chat/speech-chat",
    "/api/open-apis/projects/chat/speech-chat",
    "/api/open-apis/chat/speech-chat",
)
STREAM_SPEECH_PATHS = (
    "/api/open-apis/projects/{project}/easyllms/stream-speech",
    "/api/open-apis/projects/easyllms/stream-speech",
    "/api/open-apis/easyllms/stream-speech",
)
"""With the project and, as public clients do, without: then the key's default project serves."""

PLACES = "session"

DRAIN_GRACE_S = 3.0
"""After the drain's deadline: for the last messages and the closing handshakes."""


class SocketHub:
    """Counts, admits and drains the sessions of one process of a server."""

    def __init__(
        self,
        services: Services,
        *,
        limits: SessionLimits,
        max_sessions: int,
        compat: CompatConfig,
        authorise: Callable[[web.Request, Endpoint], Awaitable[Principal]],
        observe: Callable[[Fact], None],
        detector: VoiceDetector | None = None,
        decoding: ForkServer | None = None,
    ) -> None:
        """``observe`` is told every session's facts; it must not raise and not wait.

        Without ``detector``, which must be running, hands-free mode is refused; without ``decoding`` compressed audio.
        """
        self._detector = detector
        self._decoding = decoding
        self._services = services
        self._limits = limits
        self._places = Places(Ledger(), PLACES, max_sessions)
        self._pressure: Pressure | None = None
        self._pass_on: PassOn = lambda _request, _session: False
        self._compat = compat
        self.apology: Apology | None = None
        """What sessions say aloud when no chat model answers."""
        self.interrupt_by_voice = False
        """Hands-free: see ``[hands_free] interrupt_by``."""
        self._authorise = authorise
        self._observe = observe
        self._threads = EncodingThreads()
        self._conversations: dict[Conversation, Principal] = {}
        self._resumable: dict[tuple[str, str, str], ResumableSocket] = {}
        self._tasks = SessionTasks(on_fault=lambda: None)
        self._admitted = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def join(self, ledger: Ledger, pressure: Pressure, pass_on: PassOn) -> None:
        """Count with the server's other processes, in ``ledger``, and heed ``pressure``. Before the first session."""
        self._places = Places(ledger, PLACES, self._places.most)
        self._pressure = pressure
        self._pass_on = pass_on

    @property
    def sessions(self) -> int:
        """Sessions that are open in this process now."""
        return self._admitted

    @property
    def all_sessions(self) -> int:
        """Sessions that are open in all processes of the server now."""
        return self._places.taken

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused because the server stops."""
        return self._draining

    @property
    def sessions_by_worker(self) -> dict[int, int]:
        """Sessions that are open in each process of the server."""
        return self._places.taken_by_worker

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket routes."""
        return [
            *(web.get(path, self._speech_chat) for path in SPEECH_CHAT_PATHS),
            *(web.get(path, self._stream_speech) for path in STREAM_SPEECH_PATHS),
        ]

    def keys_in_use(self) -> frozenset[str]:
        """Ids of the keys that sessions are open with."""
        return frozenset(principal.key_id for principal in self._conversations.values())

    def end_sessions_of(self, key_ids: Collection[str], why: AccessEnded) -> None:
        """End the sessions of these keys now, in the middle of a turn too."""
        for conversation, principal in list(self._conversations.items()):
            if principal.key_id in key_ids:
                conversation.post(why)

    def time_encoders(self, report: Callable[[float], None]) -> None:
        """See ``EncodingThreads.measure``."""
        self._threads.measure(report)

    def press(self, level: Level) -> None:
        """Tell the sessions how much time there is."""
        for conversation in list(self._conversations):
            conversation.post(PressureChanged(level > Level.CALM))

    async def drain(self, deadline_s: float) -> None:
        """Refuse new sessions and end the open ones: idle ones now, others when their turn is over or time is up."""
        self._draining = True
        for conversation in self._conversations:
            conversation.post(DrainRequested(conversation.now_ms + int(deadline_s * 1000)))
        try:
            async with asyncio.timeout(deadline_s + DRAIN_GRACE_S):
                await self._empty.wait()
        except TimeoutError:
            for conversation in list(self._conversations):
                conversation.abort()
        await self._tasks.close(DRAIN_GRACE_S)
        self._threads.close()

    # --- speech-chat -------------------------------------------------------------------------------------------

    async def _speech_chat(self, request: web.Request) -> web.StreamResponse:
        socket = AiohttpSocket(self._limits)
        try:
            principal = await self._authorise(request, Endpoint.CONVERSATION)
            with self._admission(principal):
                machine, dialect, cast = self._converse(request.query)
                response = await socket.open(request)
                await self._serve(machine, dialect, socket, cast, principal)
        except AdmissionError as refusal:
            return await self._refuse(request, refusal, speech_chat.open_dialect(Greeting()))
        return response

    def _converse(self, query: Mapping[str, str]) -> tuple[Machine, Dialect, Cast]:
        services = self._services
        model = _pick("model", query, services.model)
        recognizer = _pick("asr_easyllm_id", query, services.recognizer)
        synthesizer = _pick("tts_easyllm_id", query, services.synthesizer)
        name = query["model"]
        pick_voice = _voice_picker(synthesizer.provider)
        greeting = Greeting(
            query={key: value for key, value in query.items() if key not in SECRET_PARAMETERS},
            epoch_s=unix_s(),
            session_id=secrets.token_hex(8),
            models=services.model_names,
            model=name,
            note=notes(model.resolved, recognizer.resolved, synthesizer.resolved),
            pick_voice=pick_voice,
            hands_free=self._detector is not None,
        )
        defaults = Settings(chat=ChatSettings(model=name), voice=VoiceSettings(voice=pick_voice(VoiceSettings().voice)))
        machine = Session(
            defaults,
            self._limits,
            strict_ping=self._compat.strict_ping,
            apology=self.apology,
            interrupt_by_voice=self.interrupt_by_voice,
        )
        dialect = speech_chat.open_dialect(greeting, update_reply=self._compat.chat_update_reply)
        cast = Cast(
            recognizer=recognizer.provider,
            models=services.talking_models(model.provider),
            synthesizer=synthesizer.provider,
            threads=self._threads,
            decoding=self._decoding,
            detector=self._detector,
        )
        return machine, dialect, cast

    # --- stream-speech -----------------------------------------------------------------------------------------

    async def _stream_speech(self, request: web.Request) -> web.StreamResponse:
        socket = AiohttpSocket(self._limits)
        try:
            # First of all: a token is accepted once, so only the process that serves the stream may look at it.
            if (session := request.query.get("session")) and self._pass_on(request, session):
                return web.Response()  # Nobody gets it: this process has let go of the connection.
            principal = await self._authorise(request, Endpoint.RECOGNITION)
            options = _stream_options(request.query)
            if options.session:
                resumable = self._resume(principal, options.session, request.query)
                response = await socket.open(request)
                await resumable.attach(socket, options.received)
            else:
                with self._admission(principal):
                    machine, dialect, cast = self._dictate(request.query)
                    response = await socket.open(request)
                    await self._serve(machine, dialect, socket, cast, principal)
        except AdmissionError as refusal:
            return await self._refuse(request, refusal, stream_speech.open_dialect(Greeting()))
        return response

    def _resume(self, principal: Principal, session: str, query: Mapping[str, str]) -> ResumableSocket:
        """The session of that name; begun now if there is none. It lives on when its connection is lost."""
        name = (f"{principal.key_id}/{principal.holder}", principal.project, session)
        if name not in self._resumable:
            served = self._dictate(query)
            self._admit(principal)
            socket = ResumableSocket(self._limits, stream_speech.resumed_text)
            self._resumable[name] = socket
            _ = self._tasks.spawn(self._serve_resumable(principal, name, socket, served), "resumable-session")
        return self._resumable[name]

    async def _serve_resumable(
        self,
        principal: Principal,
        name: tuple[str, str, str],
        socket: ResumableSocket,
        served: tuple[Machine, Dialect, Cast],
    ) -> None:
        machine, dialect, cast = served
        try:
            await self._serve(machine, dialect, socket, cast, principal)
        finally:
            self._dismiss(principal)
            del self._resumable[name]
            socket.abort()

    def _dictate(self, query: Mapping[str, str]) -> tuple[Machine, Dialect, Cast]:
        services = self._services
        wanted = {"easyllm_id": DEFAULT} | dict(query)
        recognizer = _pick("easyllm_id", wanted, services.recognizer).provider
        dialect = stream_speech.open_dialect(Greeting(query=query, epoch_s=unix_s()))
        cast = Cast(
            recognizer=recognizer,
            models=lambda _: services.models["default"],
            synthesizer=services.synthesizers["default"],
            threads=self._threads,
            decoding=self._decoding,
        )
        return Dictation(stream_speech.parse_query(query).input, self._limits), dialect, cast

    # --- both --------------------------------------------------------------------------------------------------

    async def _serve(
        self, machine: Machine, dialect: Dialect, socket: Socket, cast: Cast, principal: Principal
    ) -> None:
        paid = metered(cast, principal.account)
        conversation = Conversation(machine, dialect, socket, paid, limits=self._limits, observe=self._observe)
        self._conversations[conversation] = principal
        if self._pressure is not None and self._pressure.level > Level.CALM:
            conversation.post(PressureChanged(True))
        try:
            await conversation.run()
        finally:
            del self._conversations[conversation]

    async def _refuse(self, request: web.Request, refusal: AdmissionError, dialect: Dialect) -> web.StreamResponse:
        """Tell a refused client why, in the form it waits for: a browser cannot read what comes before the upgrade.

        A request that is no upgrade gets its answer as HTTP. A client that has gone already is not an error.
        """
        self._observe(SessionRefused(refusal.status))
        if not web.WebSocketResponse().can_prepare(request):
            raise refusal
        socket = AiohttpSocket(self._limits)
        response = await socket.open(request)
        try:
            async with asyncio.timeout(self._limits.close_ms / 1000):
                for frame in dialect.encode(Answered(Request.OPEN, refusal.status, refusal.message)):
                    await socket.send(frame)
                await socket.close(self._close_code(refusal), refusal.message)
        except (ConnectionError, TimeoutError):
            pass  # The client has gone, or does not read: nobody is left to be told.
        finally:
            socket.abort()
        return response

    def _close_code(self, refusal: AdmissionError) -> int:
        if refusal.status is not Status.AT_CAPACITY:
            return 1008
        return 1012 if self._draining else 1013

    @contextmanager
    def _admission(self, principal: Principal) -> Iterator[None]:
        """One place among the sessions. Raises ``AdmissionError`` when there is none, or none for this key."""
        self._admit(principal)
        try:
            yield
        finally:
            self._dismiss(principal)

    def _admit(self, principal: Principal) -> None:
        if self._draining:
            raise AdmissionError(Status.AT_CAPACITY, "the server restarts; connect again")
        if self._pressure is not None:
            self._pressure.admit()
        if not self._places.take():
            raise AtCapacityError(f"the server holds its {self._places.most} sessions already", CAPACITY_RETRY_S)
        try:
            principal.account.enter_session()
        except AdmissionError:
            self._places.free()
            raise
        self._admitted += 1
        self._empty.clear()

    def _dismiss(self, principal: Principal) -> None:
        principal.account.leave_session()
        self._places.free()
        self._admitted -= 1
        if not self._admitted:
            self._empty.set()


def _stream_options(query: Mapping[str, str]) -> stream_speech.StreamOptions:
    try:
        return stream_speech.parse_query(query)
    except RemoteProtocolError as error:
        raise AdmissionError(error.status, error.message) from None


def _pick(parameter: str, query: Mapping[str, str], find: Callable[[str, str], Found[T]]) -> Found[T]:
    name = query.get(parameter, "")
    if not name:
        raise AdmissionError(Status.INVALID_PARAMETER, f"{parameter}: is missing")
    try:
        return find(parameter, name)
    except RemoteProtocolError as error:
        raise AdmissionError(error.status, error.message) from None


def _voice_picker(synthesizer: SpeechSynthesizer) -> Callable[[str], str]:
    voices = synthesizer.voices
    return lambda wanted: wanted if wanted in voices or not voices else voices[0]
