"""DashScope's tasks and their connections. A connection is kept warm and runs one task
after the other.
"""

import asyncio
import ssl
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.dashscope_protocol import (
    PROVIDER,
    Sentence,
    TaskFinished,
    TaskKind,
    TaskStarted,
    continue_task,
    finish_task,
    read_event,
    run_task,
)
from voicechat.providers.websocket_link import LinkLostError, WebSocketLink, open_link

MAX_IDLE = 8
IDLE_S = 50.0
"""The service closes a connection without a task after 60 s."""


@dataclass(frozen=True, slots=True)
class DashScopeEndpoint:
    """The service's address and key, and the limits for it."""

    url: str
    api_key: str = field(repr=False)
    tls: ssl.SSLContext | None
    connect_s: float
    silence_s: float


class DashScopeTask:
    """One task that the service has started."""

    def __init__(self, link: WebSocketLink, kind: TaskKind, silence_s: float) -> None:
        """``silence_s``: limit between two messages while the service is expected to
        send.
        """
        self._link = link
        self._kind = kind
        self._silence_s = silence_s
        self._id = uuid.uuid4().hex
        self.input_ended = False
        self.finished = False
        """Whether the service has finished the task, so that its connection can be
        reused.
        """

    async def start(self, parameters: Mapping[str, object]) -> None:
        """Start the task; returns when the service is ready for its input."""
        self._link.expect_within(self._silence_s)
        await self._link.send(run_task(self._id, self._kind, parameters))
        while True:  # ends: every message has a deadline, and an earlier task sends no more
            message = await self._link.receive()
            if isinstance(message, bytes):
                raise ProviderError(
                    PROVIDER, FailureKind.BROKEN, "audio before the task was started"
                )
            match read_event(message, self._id):
                case TaskStarted():
                    break
                case TaskFinished():
                    raise ProviderError(
                        PROVIDER, FailureKind.BROKEN, "the task was finished before it was started"
                    )
                case Sentence() | None:
                    pass
        self._link.expect_within(None)

    async def send_audio(self, pcm: bytes) -> None:
        """Send the next samples."""
        await self._link.send(pcm)

    async def send_text(self, text: str) -> None:
        """Send text to speak."""
        await self._link.send(continue_task(self._id, self._kind, text))

    async def end_input(self) -> None:
        """End the input. From now on each message has a deadline."""
        self.input_ended = True
        await self._link.send(finish_task(self._id))
        self._link.expect_within(self._silence_s)

    async def next_output(self) -> Sentence | bytes | None:
        """Wait for a result; returns None when the task is finished. Raises
        `ProviderError`.
        """
        while True:  # ends: every message has a deadline once the input has ended
            message = await self._link.receive()
            if isinstance(message, bytes):
                return message
            match read_event(message, self._id):
                case TaskFinished() if not self.input_ended:
                    raise ProviderError(
                        PROVIDER, FailureKind.CONNECTIVITY, "the task was finished in mid-stream"
                    )
                case TaskFinished():
                    self.finished = True
                    return None
                case Sentence() as sentence:
                    return sentence
                case TaskStarted() | None:
                    pass

    def abort(self) -> None:
        """Drop the task's connection: nothing else stops the service immediately."""
        self._link.abort()

    @property
    def link(self) -> WebSocketLink:
        """The connection of the task."""
        return self._link


class TaskRunner:
    """Starts tasks, and reuses the connections of finished ones."""

    def __init__(self, endpoint: DashScopeEndpoint) -> None:
        self._endpoint = endpoint
        self._idle: deque[tuple[WebSocketLink, asyncio.TimerHandle]] = deque()
        self._busy: set[WebSocketLink] = set()
        self._closed = False

    async def start_task(self, kind: TaskKind, parameters: Mapping[str, object]) -> DashScopeTask:
        """Start a task on a warm connection, or else on a new one. Call `release_task`
        afterwards. Raises `ProviderError`.
        """
        while (link := self._take_idle()) is not None:
            try:
                return await self._begin_on(link, kind, parameters)
            except LinkLostError:
                pass  # the service has closed it in the meantime; the task never ran
        return await self._begin_on(await self._connect(), kind, parameters)

    async def probe(self) -> None:
        """Open and drop a connection, because a handshake with the key is free. Raises
        `ProviderError`.
        """
        (await self._connect()).abort()

    async def _connect(self) -> WebSocketLink:
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        endpoint = self._endpoint
        headers = {"Authorization": f"bearer {endpoint.api_key}"}
        return await open_link(
            PROVIDER,
            endpoint.url,
            connect_s=endpoint.connect_s,
            send_s=endpoint.silence_s,
            headers=headers,
            tls=endpoint.tls,
        )

    def release_task(self, task: DashScopeTask) -> None:
        """Keep the connection of a finished task, and drop that of a failed or
        cancelled one.
        """
        link = task.link
        self._busy.discard(link)
        if not task.finished or self._closed or not link.is_open:
            link.abort()
            return
        if len(self._idle) == MAX_IDLE:
            self._drop(*self._idle.popleft())
        expiry = asyncio.get_running_loop().call_later(IDLE_S, self._expire, link)
        self._idle.append((link, expiry))

    def close(self) -> None:
        """Drop all connections; tasks in progress fail."""
        self._closed = True
        while self._idle:
            self._drop(*self._idle.popleft())
        for link in self._busy:
            link.abort()

    async def _begin_on(
        self, link: WebSocketLink, kind: TaskKind, parameters: Mapping[str, object]
    ) -> DashScopeTask:
        task = DashScopeTask(link, kind, self._endpoint.silence_s)
        self._busy.add(link)
        try:
            await task.start(parameters)
        except BaseException:
            self.release_task(task)
            raise
        return task

    def _take_idle(self) -> WebSocketLink | None:
        while self._idle:
            link, expiry = self._idle.pop()  # the most recently used
            expiry.cancel()
            if link.is_open:
                return link
        return None

    def _expire(self, link: WebSocketLink) -> None:
        for entry in [entry for entry in self._idle if entry[0] is link]:
            self._idle.remove(entry)
            self._drop(*entry)

    def _drop(self, link: WebSocketLink, expiry: asyncio.TimerHandle) -> None:
        expiry.cancel()
        link.abort()
