"""A connection to a Wyoming service: events in both directions, failures as
`ProviderError`.

The ``wyoming`` package reads and writes events; this module bounds what it reads, and
its waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import Describe, Info

from voicechat.errors import ConfigError, FailureKind, ProviderError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROVIDER = "wyoming"

MAX_BYTES = 4 * 1024 * 1024
"""Limit of an event's header, its data and its payload each. The list of all of Piper's
voices takes half of it.
"""

MAX_OTHERS = 100
"""Events in a row that are not the expected answer."""


class BoundedReader(asyncio.StreamReader):
    """A reader that refuses lengths above ``MAX_BYTES``, with `ProviderError`."""

    async def readexactly(self, n: int) -> bytes:
        """Read ``n`` bytes. Raises `ProviderError` if ``n`` is above ``MAX_BYTES``."""
        if n > MAX_BYTES:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, f"an event of {n} bytes")
        return await super().readexactly(n)


class WyomingLink:
    """One open connection. At most one task receives, and one sends, at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._silence_s = silence_s

    async def send(self, event: Eventable) -> None:
        """Send an event. Raises `ProviderError`: TIMEOUT, CONNECTIVITY, REJECTED for
        text with lone surrogates.
        """
        try:
            async with asyncio.timeout(self._silence_s):
                await async_write_event(event.event(), self._writer)
        except TimeoutError as error:
            raise ProviderError(
                PROVIDER, FailureKind.TIMEOUT, "the service takes no more data"
            ) from error
        except OSError as error:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, type(error).__name__) from error
        except UnicodeEncodeError as error:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the text is no Unicode") from error

    async def receive_answer(self, *kinds: type[Eventable]) -> Event:
        """Wait for the next event of these kinds and skip others. Raises
        `ProviderError` as `receive`.
        """
        for _ in range(MAX_OTHERS):
            event = await self.receive()
            if any(kind.is_type(event.type) for kind in kinds):
                return event
        raise ProviderError(
            PROVIDER, FailureKind.BROKEN, f"{MAX_OTHERS} events, and none of them an answer"
        )

    async def receive(self) -> Event:
        """Wait for the next event.

        Raises `ProviderError`: TIMEOUT, CONNECTIVITY when the connection ends, BROKEN
        for an invalid event or for the service's own error event.
        """
        try:
            async with asyncio.timeout(self._silence_s):
                event = await async_read_event(self._reader)
        except TimeoutError as error:
            raise ProviderError(PROVIDER, FailureKind.TIMEOUT, "the service fell silent") from error
        except (OSError, EOFError) as error:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, type(error).__name__) from error
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, "no event") from error
        if event is None:
            # The package does not distinguish the end from unreadable data.
            kind = FailureKind.CONNECTIVITY if self._reader.at_eof() else FailureKind.BROKEN
            raise ProviderError(PROVIDER, kind, "the connection was closed, or no event came")
        if Error.is_type(event.type):
            # Its text is discarded, because it may quote the input.
            raise ProviderError(
                PROVIDER, FailureKind.BROKEN, f"the service reported an error: {_code(event.data)}"
            )
        return event

    def abort(self) -> None:
        """Drop the connection now."""
        self._writer.transport.abort()


class WyomingService:
    """The address of a service, and its connections: one per request, as in Home
    Assistant.
    """

    def __init__(self, uri: str, *, connect_s: float, silence_s: float) -> None:
        """``silence_s``: limit between two events of an answer. Raises `ConfigError`
        for an unusable address.
        """
        self._host, self._port = _address(uri)
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._links: set[WyomingLink] = set()
        self._closed = False

    async def connect(self) -> WyomingLink:
        """Open a connection; call `release` afterwards. Raises `ProviderError`:
        TIMEOUT, CONNECTIVITY.
        """
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        loop = asyncio.get_running_loop()
        reader = BoundedReader(limit=MAX_BYTES)
        try:
            async with asyncio.timeout(self._connect_s):
                transport, protocol = await loop.create_connection(
                    lambda: asyncio.StreamReaderProtocol(reader), self._host, self._port
                )
        except TimeoutError as error:
            message = f"{self._host}:{self._port} did not accept within {self._connect_s:g} s"
            raise ProviderError(PROVIDER, FailureKind.TIMEOUT, message) from error
        except OSError as error:
            message = f"{self._host}:{self._port}: {type(error).__name__}"
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, message) from error
        link = WyomingLink(
            reader, asyncio.StreamWriter(transport, protocol, reader, loop), self._silence_s
        )
        self._links.add(link)
        return link

    def release(self, link: WyomingLink) -> None:
        """Drop a connection."""
        self._links.discard(link)
        link.abort()

    def close(self) -> None:
        """Drop all connections; requests in progress fail."""
        self._closed = True
        for link in self._links:
            link.abort()


async def describe(service: WyomingService) -> Info:
    """Request the service's description. Raises `ProviderError` as
    `WyomingService.connect` and `WyomingLink`.
    """
    link = await service.connect()
    try:
        await link.send(Describe())
        return read_data(Info.from_event, await link.receive_answer(Info))
    finally:
        service.release(link)


async def unless_away(asking: Awaitable[None]) -> None:
    """Ignore that a service is unreachable, because it may start later; ``voicechat
    doctor`` reports the reason.
    """
    try:
        await asking
    except ProviderError as error:
        if not error.retryable:
            raise
        logger.warning("%s", error)


def read_data(read: Callable[[Event], T], event: Event) -> T:
    """Parse an event's data. Raises `ProviderError` (BROKEN) if it is invalid."""
    try:
        return read(event)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProviderError(
            PROVIDER, FailureKind.BROKEN, f"the data of {event.type[:40]!r} are incomplete"
        ) from error


def _code(data: object) -> str:
    return repr(data.get("code"))[:80] if isinstance(data, dict) else "none"


def _address(uri: str) -> tuple[str, int]:
    try:
        parts = urlsplit(uri)
        if parts.scheme == "tcp" and parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:
        pass  # an invalid port: reported below
    raise ConfigError(f"uri: {uri!r} is not of the form tcp://host:port")
