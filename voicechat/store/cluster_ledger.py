"""What the machines of a cluster count and keep together, in Redis (6 or later) or
Valkey: sessions, requests and audio of keys, unused tokens, transferred calls.

Each process is a *member*. It publishes absolute numbers, so that repeating a request
changes nothing, and it must do so at least every `MEMBER_S`; the sessions of a member
that does not are free. Only the clock of Redis counts.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from redis import RedisError

from voicechat.store.access import Quota
from voicechat.store.cluster_usage import Beginning, ClusterUnavailableError, KeyUsage, QuotaVerdict
from voicechat.store.redis_connection import Value, connect, run_script

MEMBER_S = 10
"""A process that has published nothing for 10 s is dead."""
RESERVED_S = 5
"""How long an admitted request may take to begin its session."""
AUDIO_S = 2 * 86_400
"""How long the audio of a day is kept."""
_PREFIX = "voicechat:"

# Publishes the numbers of one key, and returns the audio that other members used today.
_PUBLISH = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local day = math.floor(time[1] / 86400)

local function publish(member, key, sessions, audio_ms, begun)
  local places = 'voicechat:sessions:' .. key
  if sessions > 0 then
    redis.call('HSET', places, member, sessions)
  else
    redis.call('HDEL', places, member)
  end
  redis.call('EXPIRE', places, 86400)
  for _, reservation in ipairs(begun) do
    redis.call('ZREM', 'voicechat:reserved:' .. key, reservation)
  end
  local used = 'voicechat:audio:' .. day .. ':' .. key
  if audio_ms > 0 then
    redis.call('HSET', used, member, audio_ms)
    redis.call('EXPIRE', used, tonumber(ARGV[2]))
  end
  local others, kept = 0, redis.call('HGETALL', used)
  for i = 1, #kept, 2 do
    if kept[i] ~= member then
      others = others + tonumber(kept[i + 1])
    end
  end
  return others
end

local wanted = cjson.decode(ARGV[1])
redis.call('SET', 'voicechat:member:' .. wanted.member, 1, 'EX', tonumber(ARGV[3]))
"""
# ARGV: the numbers of a member as JSON, AUDIO_S, MEMBER_S.
_SYNC = f"""{_PUBLISH}
local found = {{}}
for i, each in ipairs(wanted.keys) do
  found[i] = publish(wanted.member, each.key, each.sessions, each.audio_ms, each.begun)
end
return found
"""
# ARGV: as for _SYNC. Returns a verdict, how long to wait in us, and others' audio.
_BEGIN = f"""{_PUBLISH}
local each = wanted.keys[1]
local others = publish(wanted.member, each.key, each.sessions, each.audio_ms, each.begun)
local reserved = 'voicechat:reserved:' .. each.key
if wanted.max_sessions then
  redis.call('ZREMRANGEBYSCORE', reserved, '-inf', now)
  local total = redis.call('ZCARD', reserved)
  local kept = redis.call('HGETALL', 'voicechat:sessions:' .. each.key)
  for i = 1, #kept, 2 do
    if redis.call('EXISTS', 'voicechat:member:' .. kept[i]) == 1 then
      total = total + tonumber(kept[i + 1])
    else
      redis.call('HDEL', 'voicechat:sessions:' .. each.key, kept[i])
    end
  end
  if total >= wanted.max_sessions then
    return {{'sessions', 0, others}}
  end
end
if wanted.per_minute then
  local rate = 'voicechat:rate:' .. each.key
  local expected = tonumber(redis.call('GET', rate) or now)
  local until_us = math.max(expected, now) + 60000000 / wanted.per_minute
  if until_us > now + 60000001 then
    return {{'rate', math.ceil(until_us - 60000000 - now), others}}
  end
  redis.call('SET', rate, string.format('%.0f', until_us), 'PX',
    math.ceil((until_us - now) / 1000))
end
if wanted.max_sessions then
  redis.call('ZADD', reserved, now + wanted.reserved_s * 1000000, wanted.reservation)
  redis.call('EXPIRE', reserved, wanted.reserved_s)
end
return {{'admitted', 0, others}}
"""
# KEYS: the token, the tokens of its key. ARGV: the grant, its life in s, the most.
_ISSUE = """
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', time[1])
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', tonumber(ARGV[2]))
redis.call('ZADD', KEYS[2], time[1] + ARGV[2], KEYS[1])
redis.call('EXPIRE', KEYS[2], 86400)
return 1
"""
# KEYS: the token.
_REDEEM = """
local kept = redis.call('GET', KEYS[1])
if kept then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', 'voicechat:tokens:' .. cjson.decode(kept)[1], KEYS[1])
end
return kept
"""
# KEYS: what is taken.
_TAKE = """
local kept = redis.call('GET', KEYS[1])
if kept then
  redis.call('DEL', KEYS[1])
end
return kept
"""


class ClusterLedger:
    """Redis as one process sees it. Every method raises `ClusterUnavailableError`
    within the deadline.
    """

    def __init__(self, url: str, deadline_s: float) -> None:
        """Raises ``ConfigError`` for an address that cannot be read."""
        self._redis = connect(url, deadline_s, "cluster.redis")
        self._member = secrets.token_hex(8)

    async def begin(self, key_id: str, quota: Quota, usage: KeyUsage) -> Beginning:
        """Publish what the key uses here, count a request of it, and reserve a place
        for its session for `RESERVED_S`.
        """
        reservation = secrets.token_hex(8)
        wanted = self._written({key_id: usage})
        wanted |= {"reserved_s": RESERVED_S, "reservation": reservation}
        if quota.max_sessions is not None:
            wanted["max_sessions"] = quota.max_sessions
        if quota.requests_per_minute is not None:
            wanted["per_minute"] = quota.requests_per_minute
        verdict, wait_us, others = await self._publish(_BEGIN, wanted)
        found = QuotaVerdict(verdict.decode())
        return Beginning(found, wait_us / 1e6, others, reservation)

    async def publish(self, usage: Mapping[str, KeyUsage]) -> dict[str, int]:
        """Publish what keys use here, and that this process lives. Returns the audio
        that other processes have used today, by key.
        """
        found = await self._publish(_SYNC, self._written(usage))
        return dict(zip(usage, found, strict=True))

    async def issue_token(
        self, digest: str, key_id: str, grant: str, life_s: int, most: int
    ) -> bool:
        """Keep the grant of a token, as ``written_grant`` writes it. Returns False if
        the key has ``most`` already.
        """
        keys = [f"{_PREFIX}token:{digest}", f"{_PREFIX}tokens:{key_id}"]
        return bool(await self._run(_ISSUE, keys, [grant, life_s, most]))

    async def redeem_token(self, digest: str) -> str | None:
        """Remove and return the grant of a token; None if there is none."""
        kept = await self._run(_REDEEM, [f"{_PREFIX}token:{digest}"], [])
        return None if kept is None else str(kept.decode())

    async def add_handover(self, call_id: str, transfer_to: str, life_s: int) -> None:
        """Keep the destination of a call."""
        await self._run(
            "redis.call('SET', KEYS[1], ARGV[1], 'EX', tonumber(ARGV[2]))",
            [f"{_PREFIX}handover:{call_id}"],
            [transfer_to, life_s],
        )

    async def take_handover(self, call_id: str) -> str:
        """Remove and return the destination of a call; empty if there is none."""
        kept = await self._run(_TAKE, [f"{_PREFIX}handover:{call_id}"], [])
        return "" if kept is None else str(kept.decode())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _written(self, usage: Mapping[str, KeyUsage]) -> dict[str, object]:
        keys = [
            {
                "key": key_id,
                "sessions": each.sessions,
                "audio_ms": each.audio_ms,
                "begun": list(each.begun),
            }
            for key_id, each in usage.items()
        ]
        return {"member": self._member, "keys": keys}

    async def _publish(self, script: str, wanted: Mapping[str, object]) -> list[Any]:
        found: list[Any] = await self._run(script, [], [json.dumps(wanted), AUDIO_S, MEMBER_S])
        return found

    async def _run(self, script: str, keys: Sequence[str], values: Sequence[Value]) -> Any:
        try:
            return await run_script(self._redis, script, keys, values)
        except (RedisError, OSError, TimeoutError) as error:
            raise ClusterUnavailableError(f"{type(error).__name__}: {error}") from error
