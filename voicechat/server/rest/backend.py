"""The parts that all REST endpoints share: the services, authorisation, and admission
of requests.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from aiohttp import web

from voicechat.agents import Agents, Arrival
from voicechat.errors import AdmissionError, AtCapacityError, RemoteProtocolError, Status
from voicechat.providers.interfaces import ChatModel, SpeechSynthesizer
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.services import Found, Services
from voicechat.runtime.wall_clock import local_time
from voicechat.server.auth import Principal, request_keys
from voicechat.server.knowledge import AgentsKnowledge
from voicechat.server.load_shedding import CAPACITY_RETRY_S, LoadShedder
from voicechat.server.response_notes import add_note
from voicechat.server.rest.cancel_on_disconnect import cancelling_on_disconnect
from voicechat.session.limits import SessionLimits
from voicechat.session.types import Message
from voicechat.store.access import ApiEndpoint
from voicechat.store.ledger import Ledger
from voicechat.store.session_slots import SessionSlots

RESERVED = 8
"""One slot of every 8 is reserved for keys without a request in this process, so that
one client's slow requests do not keep the others out.
"""

NO_GUESTS = "clients without a key need compat.guest_key in the server's configuration"

P = TypeVar("P")


class AuthoriseRequest(Protocol):
    """Authorises a request; see ``Authoriser``."""

    def __call__(
        self, request: web.Request, endpoint: ApiEndpoint, keys: Collection[str] = ()
    ) -> Awaitable[Principal]:
        """Return who sent a request; ``keys`` are tried as well."""
        ...


class Backend:
    """Shared by the endpoints; counts, admits and drains the requests of one
    process.
    """

    def __init__(
        self,
        services: Services,
        *,
        limits: SessionLimits,
        max_requests: int,
        authorise: AuthoriseRequest,
        ledger: Ledger | None = None,
        load_shedder: LoadShedder | None = None,
        agents: Agents | None = None,
        guest_key: str = "",
    ) -> None:
        """``ledger`` holds the counts that the server's processes share. Without a
        ``load_shedder`` no request is refused for load. ``guest_key`` is the key of
        guests' requests; empty: guests are refused.
        """
        self.services = services
        self.agents = replace(agents or Agents(), models=services.model_names)
        self.limits = limits
        self.knowledge: AgentsKnowledge | None = None
        """What the agents know; None: nothing."""
        self.threads = EncodingThreads()
        self._slots = SessionSlots(ledger or Ledger(), "request", max_requests)
        self._load_shedder = load_shedder
        self._authorise = authorise
        self._guest_keys = tuple(filter(None, (guest_key,)))
        self._requests = 0
        self._requests_of: Counter[str] = Counter()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def admitted(
        self,
        request: web.Request,
        endpoint: ApiEndpoint,
        keys: Collection[str] = (),
        *,
        guests: bool = False,
    ) -> AsyncIterator[Principal]:
        """Hold a slot for a request to ``endpoint`` while the context lasts. ``keys``
        may authorise it besides those of its headers and query. With ``guests``, a
        request without a key in these counts as one with the guest key.

        The body is cancelled if the client disconnects. Raises ``AdmissionError``: no
        valid key, no quota or no slot is left; and ``ClientGoneError``.
        """
        if guests and not request_keys(request):
            keys = (*keys, *self._guest_keys)
            if not keys:
                add_note(NO_GUESTS)
        with cancelling_on_disconnect(request):
            principal = await self._authorise(request, endpoint, keys)
            async with principal.account.session(uses_audio=endpoint.uses_audio):
                self._enter(principal.key_id, principal.account.sessions)
                try:
                    yield principal
                finally:
                    self._leave(principal.key_id)

    def talking_model(
        self,
        path: str,
        wanted: str,
        principal: Principal,
        *,
        url: str = "",
        keeps_marks: bool = False,
        category: str = "",
    ) -> tuple[ChatModel, tuple[Message, ...]]:
        """Return the chat model that ``wanted`` means, and the instructions of its
        agent.

        ``path`` is the parameter. The model answers from what the agent knows, and from
        the knowledge base ``category`` if that is not empty. ``url``: how the client
        reached the server. ``keeps_marks``: see ``InformedModel``.

        Raises ``RemoteProtocolError`` (NOT_FOUND), which lists the names.
        """
        arrival = Arrival(model=wanted, model_path=path, key_id=principal.key_id)
        chosen = self.agents.choose_agent(arrival)
        add_note(chosen.note)
        agent = chosen.agent.filled(arrival.values(local_time()))
        instructions = (
            ({"role": "system", "content": agent.instructions},) if agent.instructions else ()
        )
        model = self.services.models[agent.llm]
        if category:
            self.require_knowledge("category")
        if self.knowledge is not None:
            knowing = replace(agent, knowledge=(*agent.knowledge, category)) if category else agent
            consultation = self.knowledge.for_request(
                knowing, principal.project, url, keeps_marks=keeps_marks
            )
            model = consultation.inform(model)
        return model, instructions

    def synthesizer(self, path: str, wanted: str) -> SpeechSynthesizer:
        """Return the synthesiser that ``wanted`` means; raises as ``talking_model``."""
        return noted(self.services.synthesizer(path, wanted))

    @property
    def has_guests(self) -> bool:
        """Whether there is a guest key."""
        return bool(self._guest_keys)

    def require_knowledge(self, path: str) -> AgentsKnowledge:
        """Return what the agents know. Raises ``RemoteProtocolError`` (NOT_FOUND) if
        knowledge is switched off; ``path`` is the parameter that needs it.
        """
        if self.knowledge is None:
            raise RemoteProtocolError(
                Status.NOT_FOUND,
                f"{path}: this server has no knowledge bases: pip install 'voicechat[knowledge]', "
                "and see [knowledge] in its configuration",
            )
        return self.knowledge

    def public_url(self, request: web.Request) -> str:
        """Return how the client of a request reached the server, without a path."""
        return "" if self.knowledge is None else self.knowledge.public_url(request)

    @property
    def requests(self) -> int:
        """Requests in progress in this process."""
        return self._requests

    async def drain(self, deadline_s: float) -> None:
        """Refuse new requests and wait for those in progress, for at most
        ``deadline_s``.
        """
        self._draining = True
        try:
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()
        except TimeoutError:
            return  # the listener closes the connections of the remaining requests

    def close(self) -> None:
        """Stop the encoding threads, after the last request."""
        self.threads.close()

    def _enter(self, key_id: str, own: int) -> None:
        if self._draining:
            raise AdmissionError(Status.AT_CAPACITY, "the server restarts; try again")
        if self._load_shedder is not None:
            self._load_shedder.admit_session(own)
        if not self._slots.try_acquire_slot():
            raise AtCapacityError(
                f"the server holds its {self._slots.most} requests already", CAPACITY_RETRY_S
            )
        if (
            self._requests_of[key_id]
            and self._slots.slots_in_use > self._slots.most - self._slots.most // RESERVED
        ):
            self._slots.release_slot()
            raise AtCapacityError("the last places are for other keys", CAPACITY_RETRY_S)
        self._requests_of[key_id] += 1
        self._requests += 1
        self._empty.clear()

    def _leave(self, key_id: str) -> None:
        self._slots.release_slot()
        self._requests_of[key_id] -= 1
        if not self._requests_of[key_id]:
            del self._requests_of[key_id]
        self._requests -= 1
        if not self._requests:
            self._empty.set()


def noted(found: Found[P]) -> P:
    """Return a service, and add a note to the response if it is not the one that was
    named.
    """
    add_note(found.resolved.note)
    return found.provider
