"""What can go wrong with child processes. The provider that uses them maps these to its
own errors.
"""

from voicechat.errors import VoiceChatError


class WorkerError(VoiceChatError):
    """Root of what this package raises."""


class WorkerLostError(WorkerError):
    """The child died, was killed because it did not answer, or the pool was closed: the
    work may succeed elsewhere.
    """


class JobFailedError(WorkerError):
    """The job raised in the child; the child itself goes on. The same input fails
    again.
    """


class WorkersBusyError(WorkerError):
    """Every channel of every child was taken for as long as the caller was willing to
    wait.
    """
