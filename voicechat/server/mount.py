"""Mounts the endpoints of dialects on the server's ports: identifies, authorises and
admits each connection, and runs its conversation.

WebSockets and plain TCP connections of all protocols take the same path.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol

from aiohttp import web

from voicechat.agents import Agents
from voicechat.dialects.base import Caller, Endpoint, Frame, Handshake, Kind, Refused
from voicechat.errors import AdmissionError, ConfigError
from voicechat.runtime.conversation import Conversation
from voicechat.runtime.resume import ResumableSocket
from voicechat.runtime.services import Services
from voicechat.runtime.socket import Socket
from voicechat.runtime.tasks import SessionTasks
from voicechat.server.admission import DRAIN_GRACE_S, Admission
from voicechat.server.auth import Principal
from voicechat.server.identification import (
    GreetingSlots,
    RejectedCaller,
    ReplayedSocket,
    await_caller,
    handshake_of,
    identify,
)
from voicechat.server.listener import why_not
from voicechat.server.metering import metered
from voicechat.server.metric_events import SessionRefused
from voicechat.server.session_opening import AgentMemory, Conditions, SessionOpener, SessionParts
from voicechat.server.tcp import TcpSocket
from voicechat.store.access import ApiEndpoint

PassOn = Callable[[web.Request, str], bool]
"""Passes a connection on to the process that serves the resumable stream of that name.
Returns False if this process serves it.
"""

_ACCESS = {Kind.CONVERSATION: ApiEndpoint.CONVERSATION, Kind.RECOGNITION: ApiEndpoint.RECOGNITION}


class Authorise(Protocol):
    """Authorises callers. Raises ``AdmissionError``."""

    async def __call__(self, request: web.Request, endpoint: ApiEndpoint) -> Principal:
        """Authorise a request by the key in it."""

    async def admit_key(self, key: str, address: str, endpoint: ApiEndpoint) -> Principal:
        """Authorise a caller at ``address`` by the key in its first frames."""


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
        self._endpoints = endpoints
        self._admission = admission
        self._authorise = authorise
        self._conditions = conditions
        self._opener = SessionOpener(services, agents or Agents(), conditions, memory)
        self._pass_on = pass_on
        self._greeting = GreetingSlots()
        self._resumable: dict[tuple[str, str, str], ResumableSocket] = {}
        self._tasks = SessionTasks(on_fault=lambda: None)

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
        self._opener.time_encoders(report)

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
        self._opener.close()

    # --- connections ------------------------------------------------------------------

    async def _serve_request(self, endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
        handshake = handshake_of(request, self._conditions.public_url(request))
        socket = self._conditions.make_socket(self._conditions.limits, endpoint.protocols)
        response: web.StreamResponse | None = None
        try:
            caller = identify(endpoint, handshake, ())
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
            if isinstance(caller, RejectedCaller):
                raise AdmissionError(caller.status, caller.message)
            if caller.resume:
                resumable = await self._resume(endpoint, handshake, caller, principal)
                response = await socket.open(request)
                await resumable.attach(socket, caller.received)
            else:
                agent = await self._opener.recall(caller, principal)
                async with self._admission.admitted(principal):
                    parts = self._opener.open(endpoint, handshake, caller, principal, agent)
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
        caller, frames = await await_caller(self._greeting, endpoint, handshake, socket)
        if caller is None:
            return  # the caller has disconnected
        try:
            await self._let_in(endpoint, handshake, socket, request, caller, frames)
        except AdmissionError as refusal:
            language = self._opener.language_of(caller.arrival)
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
        agent = await self._opener.recall(caller, principal)
        async with self._admission.admitted(principal):
            parts = self._opener.open(endpoint, handshake, caller, principal, agent)
            await self._serve(parts, ReplayedSocket(socket, frames), principal)

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

    async def _serve(self, parts: SessionParts, socket: Socket, principal: Principal) -> None:
        records = self._conditions.records
        recording = None if records is None else records.begin(parts.caller, parts.setup)
        conversation = Conversation(
            parts.machine,
            parts.dialect,
            socket,
            metered(
                parts.providers, principal.account, None if recording is None else recording.used
            ),
            limits=self._conditions.limits,
            observe=self._conditions.observe,
            hand_over=self._conditions.hand_over,
            recording=recording,
        )
        await self._admission.serve_conversation(conversation, principal)
        remembering = self._opener.remembering(parts, principal)
        if remembering is not None:
            _ = self._tasks.spawn(remembering, "remembering")

    # --- sessions that outlive their connection ---------------------------------------

    async def _resume(
        self, endpoint: Endpoint, handshake: Handshake, caller: Caller, principal: Principal
    ) -> ResumableSocket:
        """Return the session of that name, which is opened if there is none.

        It survives the loss of its connection.
        """
        name = (f"{principal.key_id}/{principal.holder}", principal.project, caller.resume)
        if name not in self._resumable:
            parts = self._opener.open(endpoint, handshake, caller, principal)
            async with principal.account.reserved_place():
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
        parts: SessionParts,
    ) -> None:
        try:
            await self._serve(parts, socket, principal)
        finally:
            self._admission.release_session(principal)
            del self._resumable[name]
            socket.abort()
