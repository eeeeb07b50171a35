"""Where the states of conversations are kept, so that another connection, process or
machine can continue them.

A state belongs to a *conversation*, which is named by a digest that only the holder of
its handle can compute. At most one owner has the conversation at a time: ``acquire``
takes it over and returns a lease, whose ``fence`` is higher than that of every earlier
lease. A store accepts nothing under an older lease.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from voicechat.errors import VoiceChatError


class LeaseLostError(VoiceChatError):
    """Another owner has taken the conversation over. The old owner must stop."""


class StoreUnavailableError(VoiceChatError):
    """The store did not answer, or not in time, or cannot keep the state. What it keeps
    is unchanged, or is what was to be saved.
    """


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to save the state of one conversation."""

    conversation: str
    owner: str
    """Names the owner, for logs and metrics. Not a secret."""
    fence: int
    """Higher than that of every earlier lease of the conversation."""


class ResumptionStore(ABC):
    """Keeps one state for each conversation until it is ended or expires.

    Every method raises `StoreUnavailableError` within the store's own deadline, and may
    be cancelled: what is kept is then as before, or as asked.
    """

    @abstractmethod
    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """Take the conversation over from any other owner. Returns the lease, and the
        state that is kept; None: nothing is kept, or it has expired.
        """

    @abstractmethod
    async def save(self, lease: Lease, state: bytes) -> None:
        """Replace the state, and begin its time until expiry anew. Raises
        `LeaseLostError` if the conversation has a newer lease.
        """

    @abstractmethod
    async def end(self, lease: Lease) -> None:
        """Forget the conversation, which is over. Does nothing if it has a newer
        lease.
        """

    async def aclose(self) -> None:  # noqa: B027 - a store in memory has nothing to close
        """Close what the store has opened."""
