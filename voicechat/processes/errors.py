"""Errors of child processes. Providers map them to their own errors."""

from voicechat.errors import VoiceChatError


class WorkerError(VoiceChatError):
    """Base class of the errors of this package."""


class WorkerLostError(WorkerError):
    """The child died, was killed because it did not answer, or the pool was closed.

    The same work may succeed on another child.
    """


class JobFailedError(WorkerError):
    """The job raised; the child keeps running. The same input will fail again."""

    def __init__(self, reason: str) -> None:
        """``reason``: the type of the exception that the job raised."""
        super().__init__(f"the job raised {reason}")
        self.reason = reason


class WorkersBusyError(WorkerError):
    """Every channel of every child stayed in use for the caller's whole ``wait_ms``."""
