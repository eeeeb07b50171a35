"""Connects to Redis or Valkey. Only servers that are configured to need it."""

import asyncio
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from voicechat.errors import ConfigError

MAX_CONNECTIONS = 8
"""Connections of one process. Each carries one request at a time."""
Value: TypeAlias = bytes | str | int | float


def connect(url: str, deadline_s: float, key: str) -> Redis:
    """Return a client, which connects with its first request. Raises ``ConfigError``,
    which names ``key``, if the address cannot be read.

    A request gets no answer within ``deadline_s``: ``TimeoutError`` of redis. A lost
    connection is tried once more.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=deadline_s,
            socket_timeout=deadline_s,
            socket_connect_timeout=deadline_s,
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    return Redis.from_pool(pool)


async def run_script(
    redis: Redis, script: str, keys: Sequence[str], values: Sequence[Value]
) -> Any:
    """Run a script by its digest; its text is sent only if Redis does not know it.

    Cancelling leaves it undone, or done.
    """
    arguments: tuple[Value, ...] = (len(keys), *keys, *values)
    execute: Any = redis.execute_command
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        found = await execute("EVALSHA", _digest(script), *arguments)
    except NoScriptError:
        found = await execute("EVAL", script, *arguments)
    if task.cancelling() > cancelled:
        # redis-py 8 sometimes swallows a cancellation and returns the answer.
        raise asyncio.CancelledError
    return found


@cache
def _digest(script: str) -> str:
    return sha1(script.encode(), usedforsecurity=False).hexdigest()
