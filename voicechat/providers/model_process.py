"""A model in a child process that all sessions of a server share, whichever of its
workers they belong to.

The libraries that compute models hold the interpreter lock or keep every core busy for
hundreds of milliseconds; in a child of lower priority they cannot delay the event loop,
and a crash ends only the child, which is replaced.
"""

import importlib.util
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from voicechat.errors import IF_MODEL_DAMAGED, ConfigError, FailureKind, ProviderError
from voicechat.processes import python
from voicechat.processes.channel import Channel
from voicechat.processes.errors import JobFailedError, WorkerError, WorkersBusyError
from voicechat.processes.machine_share import machine_share
from voicechat.processes.pool import WorkerPool
from voicechat.processes.worker import WorkerLimits

READY_MS = 300_000
"""Time to load a model: gigabytes from a slow disk."""
ANSWER_MS = 60_000
"""A child that owes an answer and is silent for this time is replaced. The longest
single computation, half a minute of speech on a busy machine, takes a few tens of
seconds.
"""
WINDOW_BYTES = 1 << 20
NEWEST = 0.3
"""Weight of the newest result in the real-time factor, which is an average of the last
few.
"""
MAX_THREADS = 4
"""Bound of the default number of threads, which is the number of cores: the models here
gain little from more.
"""


def default_threads() -> int:
    """Return the number of threads for a model unless it is configured."""
    return min(os.cpu_count() or 1, MAX_THREADS)


def need_package(module: str, provider: str, extra: str = "local") -> None:
    """Raise `ConfigError` unless the package that computes the model is installed."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"provider: {provider!r} needs packages: pip install 'voicechat[{extra}]'"
        )


def model_path(model: str, models_dir: str) -> Path:
    """Return the file or folder ``model``: a path, or a name in ``models_dir``.

    Raises `ConfigError`.
    """
    path = Path(model).expanduser()
    named = Path(models_dir).expanduser() / model if models_dir else path
    for place in (path, named):
        if place.exists():
            return place.resolve()
    raise ConfigError(
        f"model: there is no file or folder {model!r}; "
        "'voicechat models list' shows what can be pulled"
    )


class ModelProcess:
    """One child process with one model. Its jobs are channels."""

    def __init__(
        self,
        provider: str,
        worker_module: str,
        options: object,
        *,
        jobs: int,
        wait_ms: int,
        model: str = "",
    ) -> None:
        """``options``, a data class without secrets, are passed to the child as JSON in
        its only argument. ``jobs``: concurrent jobs, which the server's workers divide;
        another one waits for ``wait_ms``.
        ``model``: the file or folder of the model, if it has one.
        """
        self._provider = provider
        self._model = model
        self._wait_ms = wait_ms
        self._factor = 0.0
        share = machine_share()
        self._pool = WorkerPool(
            python.command(worker_module, orjson.dumps(options).decode()),
            size=1,
            limits=WorkerLimits(
                channels=max(1, share.part_of(jobs)),
                window_bytes=WINDOW_BYTES,
                ready_ms=READY_MS,
                answer_ms=ANSWER_MS,
            ),
            host=share.host,
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """The process id of the child; empty while it loads."""
        return self._pool.pids

    @property
    def open_jobs(self) -> int:
        """How many jobs run in the child."""
        return self._pool.open_channels

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait for a place in the child."""
        return self._pool.waiting

    @property
    def patience_s(self) -> float:
        """As `Provider.patience_s`: a stuck child is replaced after this time."""
        return ANSWER_MS / 1000

    @property
    def real_time_factor(self) -> float:
        """As `Provider.real_time_factor`, computed from the calls of `note_speed`."""
        return self._factor

    def note_speed(self, spent_s: float, speech_s: float) -> None:
        """Record that the child took ``spent_s`` for ``speech_s`` of speech."""
        if speech_s > 0:
            factor = spent_s / speech_s
            self._factor += (factor - self._factor) * (NEWEST if self._factor else 1.0)

    @property
    def _hint(self) -> str:
        return f"; {self._model}: {IF_MODEL_DAMAGED}" if self._model else ""

    async def start(self) -> None:
        """Load the model. Raises `ProviderError` (BROKEN) with the reason, the file
        and what to do if it cannot be loaded.
        """
        try:
            await self._pool.start()
        except WorkerError as error:
            raise ProviderError(
                self._provider,
                FailureKind.BROKEN,
                f"the model cannot be loaded: {error}{self._hint}",
            ) from error

    async def aclose(self) -> None:
        """End the child; open jobs fail."""
        await self._pool.aclose()

    @asynccontextmanager
    async def job(self, options: bytes = b"") -> AsyncGenerator[Channel, None]:
        """Open a job; leaving the block cancels it.

        Inside and at its beginning, errors of the child become `ProviderError`:
        RATE_LIMIT when no place is free in time, CONNECTIVITY when the child is lost
        (the same work may succeed in its replacement), BROKEN when the job raised.
        """
        try:
            channel = await self._pool.open_channel(options, wait_ms=self._wait_ms)
        except WorkerError as error:
            raise self._provider_error(error, of_service=True) from error
        try:
            yield channel
        except WorkerError as error:
            # The input may have caused it, and a lost child is replaced.
            raise self._provider_error(error, of_service=False) from error
        finally:
            channel.close()

    def _provider_error(self, error: WorkerError, *, of_service: bool) -> ProviderError:
        if isinstance(error, WorkersBusyError):
            kind = FailureKind.RATE_LIMIT
        elif isinstance(error, JobFailedError):
            kind = FailureKind.BROKEN
        else:
            kind = FailureKind.CONNECTIVITY
        return ProviderError(self._provider, kind, str(error), of_service=of_service)
