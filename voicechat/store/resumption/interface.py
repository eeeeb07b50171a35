"""Where the states of conversations are kept, so that another connection, process or
machine can continue them.

A state belongs to a *conversation*, which is named by a digest that only the holder of
its handle can compute. At most one owner has the conversation at a time: ``acquire``
takes it over and returns a lease, whose ``fence`` is higher than that of every earlier
lease. A store accepts nothing under an older lease.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from voicechat.errors import VoiceChatError

MAX_STATE_BYTES = 1 << 20
"""Bound of one state, encrypted if it is. An hour of talk has 60,000 characters."""

LEASE_LOST = "the conversation has a newer lease, or was ended"


class LeaseLostError(VoiceChatError):
    """Another owner has taken the conversation over. The old owner must stop."""


class StoreUnavailableError(VoiceChatError):
    """The store did not answer, or not in time, or cannot keep the state. What it keeps
    is unchanged, or is what was to be saved.
    """


class StateTooLargeError(StoreUnavailableError):
    """The state has more bytes than a store keeps. What was kept before still is."""

    def __init__(self, size: int, most: int = MAX_STATE_BYTES) -> None:
        super().__init__(
            f"the state has {size} bytes; a store keeps at most {most} for each conversation"
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to save the state of one conversation."""

    conversation: str
    owner: str
    """Names the owner, for logs and metrics. Not a secret."""
    fence: int
    """Higher than that of every earlier lease of the conversation."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal has found out about leases. Most are in neither set."""

    lost: frozenset[Lease] = frozenset()
    """The conversation has a newer lease, or was ended under one."""
    missing: frozenset[Lease] = frozenset()
    """The store keeps no state for them, because none was saved, or it has lost what it
    kept: save the state again.
    """


class ResumptionStore(ABC):
    """Keeps one state for each conversation until it is ended, or expires by the
    store's own clock.

    A state may have `MAX_STATE_BYTES`. A store that has lost a conversation, as after a
    restart of Redis without a file, accepts the next save of any of its leases; of
    several, the one with the highest fence remains.

    Every method raises `StoreUnavailableError` within the store's own deadline, and may
    be cancelled: what is kept is then as before, or as asked.
    """

    async def start(self) -> None:  # noqa: B027 - a store in memory has nothing to open
        """Open what the store needs. Called once, before everything else. Raises
        `ConfigError` if it can never work. A store that does not answer now is no
        error, because it may answer later.
        """

    @abstractmethod
    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """Take the conversation over from any other owner. Returns the lease, and the
        state that is kept; None: nothing is kept, or it has expired.
        """

    @abstractmethod
    async def save(self, lease: Lease, state: bytes) -> None:
        """Replace the state, and begin its time until expiry anew. Raises
        `LeaseLostError` if the conversation has a newer lease, or was ended;
        `StateTooLargeError`.
        """

    @abstractmethod
    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """Begin the time until expiry of the states of these leases anew. They are of
        different conversations.
        """

    @abstractmethod
    async def end(self, lease: Lease) -> None:
        """Forget the conversation, which is over. Does nothing if it has a newer
        lease.
        """

    async def aclose(self) -> None:  # noqa: B027 - a store in memory has nothing to close
        """Close what the store has opened."""
