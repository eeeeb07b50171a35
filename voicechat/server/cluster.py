"""Counts across the machines of a cluster, and what happens while Redis is away.

Sessions, requests and audio are then counted by each machine for itself, so that
conversations go on. Tokens are refused, because one that two machines accept is not
accepted once.
"""

import asyncio
import hashlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from voicechat.config.server_sections import ClusterConfig
from voicechat.errors import AtCapacityError, ConfigError
from voicechat.runtime.fallback.circuit_breaker import CircuitBreaker
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.runtime.tasks import SessionTasks
from voicechat.store.access import Quota
from voicechat.store.cluster_usage import Beginning, ClusterUnavailableError, KeyUsage, QuotaVerdict
from voicechat.store.handovers import LIFE_S, Handovers
from voicechat.store.quotas import SESSION_RETRY_S, Account, QuotaExceededError, SharedPlaces
from voicechat.store.tokens import MAX_TOKENS_PER_KEY, TokenGrant, read_grant, written_grant

if TYPE_CHECKING:
    from voicechat.store.cluster_ledger import ClusterLedger

PUBLISH_S = 1.0
"""How often a process publishes what its keys use."""
LOOK_AGAIN_S = (0.05, 0.15)
"""Waits before a key's session is refused: another machine may be about to publish that
one has ended.
"""
MAX_HANDOVERS_WAITING = 100
"""Handovers on their way to Redis; those beyond are known to this machine only."""
_POLICY = ServicePolicy(breaker_failures=3, breaker_pause_s=1.0, breaker_max_pause_s=10.0)
_RETRY_S = 5
_CLOSE_S = 1.0

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Key(SharedPlaces):
    """What this process knows of one key."""

    def __init__(self, account: Account, cluster: "Cluster") -> None:
        self.account = account
        self.settled: list[str] = []
        """Reserved places that are no longer needed; not yet published."""
        self.reserving = 0
        """Sessions that are about to begin."""
        self._cluster = cluster

    @property
    def usage(self) -> KeyUsage:
        """What the key uses here."""
        return KeyUsage(self.account.sessions, self.account.audio_today_ms, tuple(self.settled))

    async def reserve(self) -> str:
        """See ``SharedPlaces.reserve``. While Redis is away, it reserves nothing: the
        machine's own count decides.
        """
        self.reserving += 1
        try:
            return await self._cluster.reserve(self)
        except BaseException:
            self.reserving -= 1
            raise

    def settle(self, reservation: str) -> None:
        """See ``SharedPlaces.settle``."""
        self.reserving -= 1
        if reservation:
            self.settled.append(reservation)
        self._cluster.wake()

    def note_end(self) -> None:
        """See ``SharedPlaces.note_end``."""
        self._cluster.wake()


class Cluster:
    """The counts of one process, joined with those of all others."""

    def __init__(self, ledger: "ClusterLedger", deadline_s: float) -> None:
        """``deadline_s``: bound of each answer of Redis."""
        self._ledger = ledger
        self._deadline_s = deadline_s
        self._breaker = CircuitBreaker(_POLICY)
        self._fails = False
        self._keys: dict[str, _Key] = {}
        self._changed = asyncio.Event()
        self._tasks = SessionTasks(
            on_fault=lambda: _log.error("this machine counts for itself now: restart the server")
        )
        self._handovers_waiting = 0

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Publish what keys use here while the context lasts."""
        _ = self._tasks.spawn(self._publish_forever(), "cluster")
        try:
            yield
        finally:
            await self._tasks.close(_CLOSE_S)
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._ledger.aclose()

    async def begin_request(self, account: Account) -> None:
        """Count a request of a key on all machines.

        A key without a quota is not counted. Raises ``QuotaExceededError``. While Redis
        is away, it does nothing: the machine's own counts decide.
        """
        if account.quota == Quota():
            return
        key = account.shared if isinstance(account.shared, _Key) else _Key(account, self)
        account.shared = key
        quota = account.quota
        rate = Quota(requests_per_minute=quota.requests_per_minute)
        found = await self._begin(key, rate)
        if found is not None and found.verdict is QuotaVerdict.RATE:
            raise QuotaExceededError(
                f"the key may make {quota.requests_per_minute} requests a minute",
                max(1, math.ceil(found.wait_s)),
            )

    async def reserve(self, key: _Key) -> str:
        """Reserve a place for a session; empty if none is needed, or while Redis is
        away. Raises ``QuotaExceededError``.

        Cancelling may leave a place reserved for 5 s.
        """
        most = key.account.quota.max_sessions
        if most is None:
            return ""
        for wait_s in (*LOOK_AGAIN_S, None):
            found = await self._begin(key, Quota(max_sessions=most))
            if found is None:
                return ""
            if found.verdict is QuotaVerdict.ADMITTED:
                return found.reservation
            if wait_s is not None:
                await asyncio.sleep(wait_s)
        raise QuotaExceededError(f"the key may have {most} sessions at once", SESSION_RETRY_S)

    def wake(self) -> None:
        """Publish soon what keys use here."""
        self._changed.set()

    async def issue_token(self, token: str, grant: TokenGrant, life_s: int) -> None:
        """Keep a new token for all machines. Raises ``AdmissionError`` if the key has
        too many, or while Redis is away.
        """
        try:
            kept = await self._ask(
                lambda: self._ledger.issue_token(
                    _digest(token), grant.key_id, written_grant(grant), life_s, MAX_TOKENS_PER_KEY
                )
            )
        except ClusterUnavailableError:
            raise AtCapacityError("no token can be made now", _RETRY_S) from None
        if not kept:
            raise QuotaExceededError(
                f"the key may have {MAX_TOKENS_PER_KEY} unused tokens", _RETRY_S
            )

    async def redeem_token(self, token: str) -> TokenGrant | None:
        """Redeem a token, which no machine accepts again. Returns None if there is
        none. Raises ``AtCapacityError`` while Redis is away.
        """
        try:
            kept = await self._ask(lambda: self._ledger.redeem_token(_digest(token)))
        except ClusterUnavailableError:
            raise AtCapacityError("no token can be checked now", _RETRY_S) from None
        return None if kept is None else read_grant(kept)

    def add_handover(self, call_id: str, transfer_to: str, life_s: int) -> None:
        """Tell all machines where a call is transferred. While Redis is away, only this
        one knows.
        """
        if self._handovers_waiting < MAX_HANDOVERS_WAITING:
            self._handovers_waiting += 1
            _ = self._tasks.spawn(self._add_handover(call_id, transfer_to, life_s), "handover")

    async def take_handover(self, call_id: str) -> str:
        """Remove and return where a call is transferred; empty if no machine has told,
        or while Redis is away.
        """
        with suppress(ClusterUnavailableError):
            return await self._ask(lambda: self._ledger.take_handover(call_id))
        return ""

    async def publish(self) -> None:
        """Publish now what keys use here. Raises ``ClusterUnavailableError``."""
        published = {key_id: (key, key.usage) for key_id, key in self._keys.items()}
        usage = {key_id: each for key_id, (_, each) in published.items()}
        elsewhere = await self._ask(lambda: self._ledger.publish(usage))
        for key_id, (key, each) in published.items():
            self._published(key, each)
            key.account.audio_elsewhere_ms = elsewhere[key_id]
            in_use = each.sessions or key.account.sessions or key.reserving or key.settled
            if not in_use and self._keys.get(key_id) is key:
                del self._keys[key_id]

    async def _begin(self, key: _Key, quota: Quota) -> Beginning | None:
        """Ask whether a request may begin; None while Redis is away."""
        self._keys[key.account.key_id] = key
        usage = key.usage
        try:
            found = await self._ask(partial(self._ledger.begin, key.account.key_id, quota, usage))
        except ClusterUnavailableError:
            return None
        self._published(key, usage)
        key.account.audio_elsewhere_ms = found.audio_elsewhere_ms
        return found

    @staticmethod
    def _published(key: _Key, usage: KeyUsage) -> None:
        key.settled = [each for each in key.settled if each not in usage.begun]

    async def _publish_forever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_S):
                    await self._changed.wait()
            self._changed.clear()
            with suppress(ClusterUnavailableError):
                await self.publish()

    async def _add_handover(self, call_id: str, transfer_to: str, life_s: int) -> None:
        try:
            with suppress(ClusterUnavailableError):
                await self._ask(lambda: self._ledger.add_handover(call_id, transfer_to, life_s))
        finally:
            self._handovers_waiting -= 1

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask Redis within the deadline, unless it has failed repeatedly."""
        loop = asyncio.get_running_loop()
        if not self._breaker.allows(loop.time()):
            raise ClusterUnavailableError("Redis has failed repeatedly and rests")
        trial = self._breaker.begin_use(loop.time())
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await call()
        except (TimeoutError, ClusterUnavailableError) as error:
            self._breaker.record_failure(loop.time(), trial=trial)
            if not self._fails:
                _log.error("Redis of the cluster fails: each machine counts for itself: %s", error)
            self._fails = True
            raise ClusterUnavailableError(str(error)) from error
        except BaseException:
            self._breaker.record_abandoned(loop.time(), trial=trial)
            raise
        self._breaker.record_success(trial=trial)
        if self._fails:
            _log.info("Redis of the cluster works again")
        self._fails = False
        return found


def open_cluster(settings: ClusterConfig) -> Cluster | None:
    """Open the cluster, which ``joined`` connects; None if none is configured. Raises
    ``ConfigError`` naming the key.
    """
    if not settings.redis:
        return None
    try:
        from voicechat.store.cluster_ledger import ClusterLedger
    except ImportError as error:
        raise ConfigError("cluster.redis: needs pip install 'voicechat[cluster]'") from error
    deadline_s = settings.deadline_ms / 1000
    return Cluster(ClusterLedger(settings.redis, deadline_s), deadline_s)


class SharedHandovers:
    """The handovers of one machine, and with a cluster those of all."""

    def __init__(self, own: Handovers, cluster: Cluster | None) -> None:
        self._own = own
        self._cluster = cluster

    def add(self, call_id: str, transfer_to: str) -> None:
        """Store the destination of a call."""
        self._own.add(call_id, transfer_to, asyncio.get_running_loop().time())
        if self._cluster is not None and call_id:
            self._cluster.add_handover(call_id, transfer_to, LIFE_S)

    async def take(self, call_id: str) -> str:
        """Remove and return the destination of a call; empty if there is none."""
        own = self._own.take(call_id, asyncio.get_running_loop().time())
        if self._cluster is None or not call_id:
            return own
        return await self._cluster.take_handover(call_id) or own


def _nothing() -> None:
    pass


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
