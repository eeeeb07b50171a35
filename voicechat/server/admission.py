"""Admission control of sessions: slots, load, quotas; and how sessions end when the
server stops or their key is revoked.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from voicechat.errors import AdmissionError, AtCapacityError, Status
from voicechat.runtime.conversation import Conversation
from voicechat.server.auth import Principal
from voicechat.server.load_shedding import CAPACITY_RETRY_S, LoadShedder
from voicechat.server.load_signals import LoadLevel
from voicechat.session.events import AccessEnded, DrainAnnounced, DrainRequested, PressureChanged
from voicechat.store.ledger import Ledger
from voicechat.store.session_slots import SessionSlots

SLOTS = "session"
ANNOUNCED_S = 1.0
"""The least time between the announcement of a drain and the end of an idle session: a
proxy needs it to notice that this server takes no more connections.
"""
SPREAD_S = 2.0
"""The sessions that were told end over this time, so that their clients do not all come
to the other servers at once.
"""
DRAIN_GRACE_S = 3.0
"""Added to the drain's deadline for the last messages and the closing handshakes."""


class Admission:
    """Counts, admits and drains the sessions of one process, of every protocol."""

    def __init__(
        self,
        max_sessions: int,
        ledger: Ledger | None = None,
        load_shedder: LoadShedder | None = None,
    ) -> None:
        """``ledger`` holds the counts that the server's processes share. Without a
        ``load_shedder`` no session is refused for load.
        """
        self._slots = SessionSlots(ledger or Ledger(), SLOTS, max_sessions)
        self._load_shedder = load_shedder
        self._conversations: dict[Conversation, Principal] = {}
        self._admitted = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def sessions(self) -> int:
        """Sessions that are open in this process."""
        return self._admitted

    @property
    def all_sessions(self) -> int:
        """Sessions that are open in all processes of the server."""
        return self._slots.slots_in_use

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused because the server stops."""
        return self._draining

    @property
    def sessions_by_worker(self) -> dict[int, int]:
        """Sessions that are open in each process of the server."""
        return self._slots.slots_by_worker

    def keys_in_use(self) -> frozenset[str]:
        """Return the ids of the keys that open sessions use."""
        principals = self._conversations.values()
        return frozenset(each.key_id for each in principals if not each.keyless)

    def end_sessions_of(self, key_ids: Collection[str], why: AccessEnded) -> None:
        """End the sessions of these keys now, even in the middle of a turn."""
        for conversation, principal in list(self._conversations.items()):
            if principal.key_id in key_ids:
                conversation.post(why)

    def set_load_level(self, level: LoadLevel) -> None:
        """Notify the open sessions of the load level."""
        for conversation in list(self._conversations):
            conversation.post(PressureChanged(level > LoadLevel.CALM))

    async def drain(self, deadline_s: float) -> None:
        """Refuse new sessions and end the open ones: idle ones now, others when their
        turn ends or the deadline passes. Clients that want to be told are told first,
        and have ``ANNOUNCED_S`` or more to leave by themselves.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        requests = {
            conversation: DrainRequested(conversation.now_ms + int(deadline_s * 1000))
            for conversation in self._conversations
        }
        announced = [each for each in requests if each.announces_end]
        for number, conversation in enumerate(announced):
            left_s = min(deadline_s, ANNOUNCED_S + SPREAD_S * number / len(announced))
            conversation.post(DrainAnnounced(int(left_s * 1000)))
            loop.call_later(left_s, conversation.post, requests.pop(conversation))
        for conversation, request in requests.items():
            conversation.post(request)
        try:
            async with asyncio.timeout(deadline_s + DRAIN_GRACE_S):
                await self._empty.wait()
        except TimeoutError:
            for conversation in list(self._conversations):
                conversation.abort()

    async def serve_conversation(self, conversation: Conversation, principal: Principal) -> None:
        """Run the conversation of an admitted session. Cancelling drops its
        connection.
        """
        self._conversations[conversation] = principal
        if self._load_shedder is not None and self._load_shedder.level > LoadLevel.CALM:
            conversation.post(PressureChanged(True))
        try:
            await conversation.run()
        finally:
            del self._conversations[conversation]

    @asynccontextmanager
    async def admitted(self, principal: Principal) -> AsyncIterator[None]:
        """Hold a session slot while the context lasts. Raises ``AdmissionError`` if no
        slot is free, or the key may have no more.
        """
        async with principal.account.reserved_place():
            self.admit_session(principal)
        try:
            yield
        finally:
            self.release_session(principal)

    def admit_session(self, principal: Principal) -> None:
        """Acquire a session slot, which ``release_session`` releases, with a place that
        is reserved. Raises as ``admitted``.
        """
        if self._draining:
            raise AdmissionError(Status.AT_CAPACITY, "the server restarts; connect again")
        if self._load_shedder is not None:
            self._load_shedder.admit_session(principal.account.sessions)
        if not self._slots.try_acquire_slot():
            message = f"the server holds its {self._slots.most} sessions already"
            raise AtCapacityError(message, CAPACITY_RETRY_S)
        try:
            principal.account.enter_session()
        except AdmissionError:
            self._slots.release_slot()
            raise
        self._admitted += 1
        self._empty.clear()

    def release_session(self, principal: Principal) -> None:
        """Release a session slot."""
        principal.account.leave_session()
        self._slots.release_slot()
        self._admitted -= 1
        if not self._admitted:
            self._empty.set()
