"""A resumption store in Redis (6 or later) or Valkey, for the machines of a cluster.

Each operation is one script, which Redis executes without interruption: it compares the
lease and writes. Only the clock of Redis counts: lifetimes are given as durations, and
fences begin with its time, so that they grow even after Redis has lost everything.

All keys must be on one primary. Redis Cluster, which spreads keys over several, is not
supported.
"""

from collections.abc import Collection, Sequence
from typing import Any

from redis import RedisError

from voicechat.store.redis_connection import Value, connect, run_script
from voicechat.store.resumption.interface import (
    LEASE_LOST,
    MAX_STATE_BYTES,
    Lease,
    LeaseLostError,
    Renewal,
    ResumptionStore,
    StateTooLargeError,
    StoreUnavailableError,
)

PREFIX = "voicechat:conversation:"
RENEWED_AT_ONCE = 200
"""Leases in one script, which holds up other clients of Redis for about a
millisecond.
"""

# KEYS[1]: the conversation. ARGV: owner, lifetime in ms.
_ACQUIRE = """
local time = redis.call('TIME')
local fence = time[1] * 1000000 + time[2]
local kept = redis.call('HMGET', KEYS[1], 'fence', 'state')
if kept[1] and tonumber(kept[1]) >= fence then
  fence = tonumber(kept[1]) + 1
end
fence = string.format('%.0f', fence)
redis.call('HSET', KEYS[1], 'fence', fence, 'owner', ARGV[1])
redis.call('HDEL', KEYS[1], 'ended')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {fence, kept[2]}
"""
# Whether the lease (fence, owner) is older than the one that is kept.
_IS_LOST = """
local function is_lost(key, fence, owner)
  local kept = redis.call('HMGET', key, 'fence', 'owner', 'ended')
  if not kept[1] or tonumber(kept[1]) < tonumber(fence) then
    return false
  end
  return kept[1] ~= fence or kept[2] ~= owner or kept[3] ~= false
end
"""
# KEYS[1]: the conversation. ARGV: fence, owner, lifetime in ms, state.
_SAVE = f"""{_IS_LOST}
if is_lost(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'owner', ARGV[2], 'state', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
# KEYS[1]: the conversation. ARGV: fence, owner, lifetime in ms.
_END = f"""{_IS_LOST}
if is_lost(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'owner', ARGV[2], 'ended', 1)
redis.call('HDEL', KEYS[1], 'state')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
# KEYS: conversations. ARGV: lifetime in ms, then fence and owner of each.
# Returns for each: 0 lost, 1 renewed, 2 missing.
_RENEW = f"""{_IS_LOST}
local found = {{}}
for i, key in ipairs(KEYS) do
  local fence, owner = ARGV[2 * i], ARGV[2 * i + 1]
  if is_lost(key, fence, owner) then
    found[i] = 0
  else
    local kept = redis.call('HGET', key, 'fence')
    if kept ~= fence then
      redis.call('HDEL', key, 'state', 'ended')
      redis.call('HSET', key, 'fence', fence, 'owner', owner)
    end
    redis.call('PEXPIRE', key, ARGV[1])
    found[i] = redis.call('HEXISTS', key, 'state') == 1 and 1 or 2
  end
end
return found
"""
_LOST, _MISSING = 0, 2


class RedisResumptionStore(ResumptionStore):
    """States in hashes of one Redis, which many machines may use."""

    def __init__(self, url: str, lifetime_s: float, *, deadline_s: float) -> None:
        """``url``: ``redis://``, ``rediss://`` (TLS) or ``unix://``. ``lifetime_s``:
        how long a state is kept after its last save or renewal. ``deadline_s``: bound
        of connecting, and of each answer.
        """
        self._redis = connect(url, deadline_s, "resumption.store")
        self._lifetime_ms = round(lifetime_s * 1000)

    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """See ``ResumptionStore.acquire``."""
        fence, state = await self._run(_ACQUIRE, [conversation], [owner, self._lifetime_ms])
        return Lease(conversation, owner, int(fence)), state

    async def save(self, lease: Lease, state: bytes) -> None:
        """See ``ResumptionStore.save``."""
        if len(state) > MAX_STATE_BYTES:
            raise StateTooLargeError(len(state))
        values: list[Value] = [lease.fence, lease.owner, self._lifetime_ms, state]
        if not await self._run(_SAVE, [lease.conversation], values):
            raise LeaseLostError(LEASE_LOST)

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """See ``ResumptionStore.renew``."""
        wanted, found = tuple(leases), list[int]()
        for begin in range(0, len(wanted), RENEWED_AT_ONCE):
            batch = wanted[begin : begin + RENEWED_AT_ONCE]
            values: list[Value] = [self._lifetime_ms]
            for lease in batch:
                values += (lease.fence, lease.owner)
            found += await self._run(_RENEW, [lease.conversation for lease in batch], values)
        pairs = tuple(zip(wanted, found, strict=True))
        return Renewal(
            frozenset(lease for lease, what in pairs if what == _LOST),
            frozenset(lease for lease, what in pairs if what == _MISSING),
        )

    async def end(self, lease: Lease) -> None:
        """See ``ResumptionStore.end``. That it was ended is kept for a lifetime."""
        values: list[Value] = [lease.fence, lease.owner, self._lifetime_ms]
        await self._run(_END, [lease.conversation], values)

    async def aclose(self) -> None:
        """See ``ResumptionStore.aclose``."""
        await self._redis.aclose()

    async def _run(self, script: str, conversations: Sequence[str], values: Sequence[Value]) -> Any:
        keys = [f"{PREFIX}{conversation}" for conversation in conversations]
        try:
            return await run_script(self._redis, script, keys, values)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailableError(f"{type(error).__name__}: {error}") from error
