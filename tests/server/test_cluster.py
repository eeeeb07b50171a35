"""Machines that share Redis count a key's sessions, requests and audio together, and
accept each token once. Without Redis each counts for itself, and accepts no token.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis import Redis

from tests.redis_server import RedisServer, redis_server
from tests.unused_port import unused_port
from voicechat.errors import AtCapacityError
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.auth import Authoriser, Principal
from voicechat.server.cluster import Cluster, SharedHandovers
from voicechat.store.access import ApiEndpoint, Quota, Scope
from voicechat.store.cluster_ledger import ClusterLedger
from voicechat.store.handovers import Handovers
from voicechat.store.keys import KeyStore
from voicechat.store.quotas import Account, QuotaExceededError
from voicechat.store.tokens import TokenGrant

__all__ = ["redis_server"]
pytestmark = pytest.mark.real_time

DEADLINE_S = 60.0
KEY = "key-of-the-environment"
GRANT = TokenGrant(
    key_id="environment",
    scope=Scope(projects=("p",), endpoints=(ApiEndpoint.CHAT,)),
    user="ann",
    configuration='{"voice":"小"}',
)


class Machine:
    """What one machine knows of one key, and its part of the cluster."""

    def __init__(self, url: str, quota: Quota, folder: Path, deadline_s: float) -> None:
        self.cluster = Cluster(ClusterLedger(url, deadline_s), deadline_s)
        self.account = Account(quota, unix_s, key_id="k")
        self.authorise = Authoriser(
            KeyStore(folder / "keys"), {"environment": KEY}, cluster=self.cluster
        )
        self.handovers = SharedHandovers(Handovers(), self.cluster)

    async def request(self) -> None:
        self.account.begin_request(asyncio.get_running_loop().time())
        await self.cluster.begin_request(self.account)

    async def enter(self) -> None:
        await self.request()
        async with self.account.reserved_place():
            self.account.enter_session()


Open = Callable[[Quota], Awaitable[Machine]]


@pytest.fixture
async def machine(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens machines of one cluster, which has counted nothing."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    async with AsyncExitStack() as stack:

        async def open_machine(quota: Quota) -> Machine:
            made = Machine(redis_server.url, quota, tmp_path, DEADLINE_S)
            await stack.enter_async_context(made.cluster.joined())
            return made

        yield open_machine


@pytest.mark.long
async def test_sessions_of_a_key_count_on_all_machines(machine: Open) -> None:
    first, second, third = [await machine(Quota(max_sessions=2)) for _ in range(3)]
    await first.enter()
    await second.enter()
    for each in (first, second, third):
        with pytest.raises(QuotaExceededError, match="2 sessions at once"):
            await each.enter()
    first.account.leave_session()
    await third.enter()
    with pytest.raises(QuotaExceededError):
        await first.enter()


@pytest.mark.long
async def test_requests_at_the_same_moment_do_not_exceed_the_quota(machine: Open) -> None:
    machines = [await machine(Quota(max_sessions=5)) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(each.enter() for each in machines for _ in range(5)), return_exceptions=True
    )
    assert outcomes.count(None) == 5
    assert {type(each) for each in outcomes if each} == {QuotaExceededError}


@pytest.mark.long
async def test_one_request_after_the_other_needs_only_one_place(machine: Open) -> None:
    machines = [await machine(Quota(max_sessions=1)) for _ in range(2)]
    for each in machines * 5:
        await each.enter()
        each.account.leave_session()


@pytest.mark.long
async def test_a_session_that_does_not_begin_keeps_no_place(machine: Open) -> None:
    first, second = [await machine(Quota(max_sessions=1)) for _ in range(2)]
    for each in (first, second, first):
        await each.request()
        with pytest.raises(AtCapacityError):
            async with each.account.reserved_place():
                raise AtCapacityError("this machine is full", 5)
    await second.enter()


@pytest.mark.long
async def test_the_places_of_a_dead_machine_are_free(
    redis_server: RedisServer, machine: Open
) -> None:
    quota = Quota(max_sessions=1)
    dying, other = await machine(quota), await machine(quota)
    await dying.enter()
    await dying.cluster.publish()
    with pytest.raises(QuotaExceededError):
        await other.enter()
    await dying.cluster._tasks.close(1.0)
    with Redis.from_url(redis_server.url) as client:
        member = dying.cluster._ledger._member
        assert 0 < client.ttl(f"voicechat:member:{member}") <= 10
        client.delete(f"voicechat:member:{member}")  # its ten seconds are over
    await other.enter()


@pytest.mark.long
async def test_requests_per_minute_count_on_all_machines(machine: Open) -> None:
    first, second = [await machine(Quota(requests_per_minute=4)) for _ in range(2)]
    for each in (first, second, first, second):
        await each.request()
    with pytest.raises(QuotaExceededError, match="4 requests a minute; try again in") as refused:
        await first.request()
    assert 1 <= refused.value.retry_after_s <= 15


@pytest.mark.long
async def test_audio_of_a_day_counts_on_all_machines(machine: Open) -> None:
    first, second = [await machine(Quota(audio_seconds_per_day=10)) for _ in range(2)]
    await first.enter()
    first.account.use_audio(6_000)
    await first.cluster.publish()
    await second.enter()
    assert not second.account.audio_used_up
    second.account.use_audio(4_000)
    assert second.account.audio_used_up
    await second.cluster.publish()
    await first.cluster.publish()
    assert first.account.audio_used_up
    with pytest.raises(QuotaExceededError, match="10 s of audio"):
        await first.enter()


@pytest.mark.long
async def test_each_token_is_accepted_by_one_machine_once(machine: Open) -> None:
    first, second = [await machine(Quota()) for _ in range(2)]
    token = await first.authorise.issue_token(GRANT, 60)
    outcomes = await asyncio.gather(
        *(
            each.authorise.admit_key(token, "192.0.2.1", ApiEndpoint.CHAT)
            for each in (first, second, first, second)
        ),
        return_exceptions=True,
    )
    admitted = [each for each in outcomes if isinstance(each, Principal)]
    assert len(admitted) == 1
    assert (admitted[0].project, admitted[0].configuration) == ("p", GRANT.configuration)


@pytest.mark.long
async def test_used_tokens_do_not_count_as_unused(
    machine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicechat.server.cluster.MAX_TOKENS_PER_KEY", 2)
    only = await machine(Quota())
    for _ in range(4):
        token = await only.authorise.issue_token(GRANT, 60)
        await only.authorise.admit_key(token, "192.0.2.1", ApiEndpoint.CHAT)
    await only.authorise.issue_token(GRANT, 60)
    await only.authorise.issue_token(GRANT, 60)
    with pytest.raises(QuotaExceededError, match="2 unused tokens"):
        await only.authorise.issue_token(GRANT, 60)


@pytest.mark.long
async def test_another_machine_answers_where_a_call_is_transferred(machine: Open) -> None:
    first, second = [await machine(Quota()) for _ in range(2)]
    first.handovers.add("call-1", "+4930123456")
    while not (found := await second.handovers.take("call-1")):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert found == "+4930123456"
    assert await second.handovers.take("call-1") == ""


@pytest.mark.long
async def test_counts_continue_when_redis_has_lost_everything(
    redis_server: RedisServer, machine: Open
) -> None:
    first, second = [await machine(Quota(max_sessions=1)) for _ in range(2)]
    await first.enter()
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    await first.cluster.publish()
    with pytest.raises(QuotaExceededError):
        await second.enter()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Machine]:
    """A machine whose Redis does not answer."""
    url = f"redis://127.0.0.1:{unused_port()}"
    made = Machine(url, Quota(max_sessions=2, requests_per_minute=3), tmp_path, 0.5)
    async with made.cluster.joined():
        yield made


async def test_without_redis_a_machine_counts_for_itself(alone: Machine) -> None:
    await alone.enter()
    await alone.enter()
    await alone.request()
    with pytest.raises(QuotaExceededError, match="2 sessions"):
        alone.account.enter_session()
    with pytest.raises(QuotaExceededError, match="3 requests"):
        await alone.request()


async def test_without_redis_tokens_are_neither_made_nor_accepted(alone: Machine) -> None:
    with pytest.raises(AtCapacityError, match="no token can be made now; try again in 5 s"):
        await alone.authorise.issue_token(GRANT, 60)
    with pytest.raises(AtCapacityError, match="no token can be checked now"):
        await alone.authorise.admit_key("vt_x", "192.0.2.1", ApiEndpoint.CHAT)
    admitted = await alone.authorise.admit_key(KEY, "192.0.2.1", ApiEndpoint.CHAT)
    assert admitted.key_id == "environment"


async def test_without_redis_a_machine_still_knows_its_own_handovers(alone: Machine) -> None:
    alone.handovers.add("call-1", "+4930123456")
    assert await alone.handovers.take("call-1") == "+4930123456"
    assert await alone.handovers.take("call-1") == ""
