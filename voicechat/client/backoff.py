"""When to reconnect, and when to give up."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from voicechat.client.connection import ConnectionLostError
from voicechat.errors import AdmissionError, Status, VoiceChatError

_LARGEST_EXPONENT = 16
FINAL_CODES = frozenset({1002, 1003, 1007, 1008, 1009})
"""Close codes that a reconnecting client would receive again (RFC 6455, 7.4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter: the delay doubles with each failure, and is
    multiplied by a random factor of 0.5 to 1 so that clients do not reconnect together.
    """

    first_s: float = 0.2
    longest_s: float = 5.0
    give_up_s: float = 60.0
    """Seconds after the connection was lost from which no new attempt is made."""

    def wait_s(self, failures: int) -> float:
        """Return the delay after ``failures`` failed attempts."""
        whole_s = min(self.longest_s, self.first_s * 2.0 ** min(failures, _LARGEST_EXPONENT))
        return random.uniform(0.5, 1.0) * whole_s


class ReconnectAttempts:
    """Counts failed attempts to connect. A first connection that fails is not retried:
    the address or the key may be wrong.
    """

    def __init__(self, backoff: Backoff, is_final: Callable[[VoiceChatError], bool]) -> None:
        """``is_final`` returns whether an error is permanent."""
        self._backoff = backoff
        self._is_final = is_final
        self._failures = 0
        self._lost_s: float | None = None
        self.connected_before = False

    def note_success(self) -> None:
        """Record that a connection is open."""
        self._failures, self._lost_s, self.connected_before = 0, None, True

    async def wait_for_retry(self, error: VoiceChatError) -> None:
        """Wait until the next attempt is due. Raises ``error``, which ended the last
        attempt, if no further attempt is allowed.
        """
        now_s = asyncio.get_running_loop().time()
        if self._lost_s is None:
            self._lost_s = now_s
        wait_s = self._backoff.wait_s(self._failures)
        late = now_s + wait_s > self._lost_s + self._backoff.give_up_s
        if late or not self.connected_before or self._is_final(error):
            raise error
        self._failures += 1
        await asyncio.sleep(wait_s)


def is_final(error: VoiceChatError) -> bool:
    """Whether ``error`` is permanent: the next attempt would fail in the same way."""
    match error:
        case AdmissionError():
            return error.status not in (Status.AT_CAPACITY, Status.QUOTA)
        case ConnectionLostError():
            return error.code in FINAL_CODES
        case _:
            return True
