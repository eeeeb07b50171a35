"""A WebSocket client connection to a service. Failures are `ProviderError`, and closing
never waits.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.openai_errors import kind_of_status
from voicechat.proxies import is_loopback

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Limit of one incoming message. At most 16 messages are queued, then reading from the
network pauses.
"""

UNREADABLE = (1002, 1007, 1009)
"""Close codes that this side sends for data that is not WebSocket, not UTF-8 or too
large.
"""


class LinkLostError(ProviderError):
    """The service or the network closed the connection."""


class WebSocketLink:
    """One open connection. At most one task receives, and one sends, at a time."""

    def __init__(self, provider: str, connection: ClientConnection, send_s: float) -> None:
        """``send_s``: how long the service may refuse to take data."""
        self._provider = provider
        self._connection = connection
        self._send_s = send_s
        self._patience_s: float | None = None
        self._waiting: asyncio.Timeout | None = None

    @property
    def is_open(self) -> bool:
        """False once either side is known to have begun to close it."""
        return self._connection.state is State.OPEN

    async def send(self, message: str | bytes) -> None:
        """Send a text or binary message. Raises `ProviderError`: TIMEOUT, or
        `LinkLostError`.
        """
        try:
            async with asyncio.timeout(self._send_s):
                await self._connection.send(message)
        except TimeoutError as error:
            raise ProviderError(
                self._provider, FailureKind.TIMEOUT, "the service takes no more data"
            ) from error
        except ConnectionClosed as error:
            raise self._lost(error) from error

    def expect_within(self, seconds: float | None) -> None:
        """Set the limit between two messages, from this call on; None: no limit."""
        self._patience_s = seconds
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(
                None if seconds is None else asyncio.get_running_loop().time() + seconds
            )

    async def receive(self) -> str | bytes:
        """Wait for the next message. Raises `ProviderError`: TIMEOUT, BROKEN for an
        invalid one, or `LinkLostError`.
        """
        limit = self._waiting = asyncio.timeout(self._patience_s)
        try:
            async with limit:
                return await self._connection.recv()
        except TimeoutError as error:
            raise ProviderError(
                self._provider, FailureKind.TIMEOUT, "the service fell silent"
            ) from error
        except ConnectionClosed as error:
            raise self._lost(error) from error
        finally:
            self._waiting = None

    async def answers(self, within_s: float) -> bool:
        """Ping the service. Returns False if no pong comes within ``within_s``."""
        try:
            async with asyncio.timeout(within_s):
                await (await self._connection.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        return True

    def abort(self) -> None:
        """Drop the connection now. A closing handshake would wait for the peer."""
        self._connection.transport.abort()

    def _lost(self, error: ConnectionClosed) -> ProviderError:
        # The peer's reason is not kept: it may quote the conversation.
        if error.sent is not None and error.sent.code in UNREADABLE and not error.rcvd_then_sent:
            return ProviderError(
                self._provider,
                FailureKind.BROKEN,
                f"unreadable data (close code {error.sent.code})",
            )
        code = error.rcvd.code if error.rcvd is not None else 1006
        return LinkLostError(
            self._provider, FailureKind.CONNECTIVITY, f"the connection was closed (code {code})"
        )


class _DirectConnect(connect):
    """A client that follows no redirect, because that could send the key to another
    host.
    """

    def process_redirect(self, exc: Exception) -> Exception:
        """Return the redirect as the failure."""
        return exc


async def open_link(
    provider: str,
    url: str,
    *,
    connect_s: float,
    send_s: float,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    tls: ssl.SSLContext | None = None,
) -> WebSocketLink:
    """Connect within ``connect_s``. Cancelling leaves nothing behind. ``tls``: see
    `tls_for`.

    Raises `ProviderError`: TIMEOUT, CONNECTIVITY (refused, no such host, 5xx), REJECTED
    (401 and similar, an untrusted certificate), RATE_LIMIT (429), BROKEN (no
    WebSocket).
    """
    where = urlsplit(url).hostname
    try:
        connection = await _DirectConnect(
            url,
            additional_headers=headers,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            open_timeout=connect_s,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,  # audio does not compress
            ping_interval=None,  # every wait has its own deadline
            ssl=tls,
            proxy=None if is_loopback(where or "") else True,  # True: the environment's
        )
    except TimeoutError as error:
        raise ProviderError(
            provider, FailureKind.TIMEOUT, f"{where}: not connected within {connect_s:g} s"
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise ProviderError(
            provider, FailureKind.REJECTED, f"{where}: its certificate is not trusted"
        ) from error
    except (OSError, EOFError) as error:
        raise ProviderError(
            provider, FailureKind.CONNECTIVITY, f"{where}: {type(error).__name__}"
        ) from error
    except InvalidStatus as error:
        status = error.response.status_code
        raise ProviderError(
            provider, kind_of_status(status), f"{where}: HTTP status {status}"
        ) from error
    except InvalidMessage as error:
        raise ProviderError(
            provider, _kind_of_no_answer(error), f"{where}: no HTTP answer"
        ) from error
    except ProxyError as error:
        message = (
            f"{where}: cannot be reached through the environment's proxy ({type(error).__name__})"
        )
        raise ProviderError(provider, FailureKind.CONNECTIVITY, message) from error
    except WebSocketException as error:
        raise ProviderError(
            provider, FailureKind.BROKEN, f"{where}: no WebSocket: {type(error).__name__}"
        ) from error
    except ImportError as error:  # of python-socks
        raise ProviderError(
            provider, FailureKind.REJECTED, f"the proxy cannot be used: {error}"
        ) from error
    return WebSocketLink(provider, connection, send_s)


def checked_url(key: str, url: str) -> str:
    """Return ``url``. Raises `ConfigError` that names ``key`` if it is not a WebSocket
    address.
    """
    try:
        parse_uri(url)
    except (InvalidURI, ValueError) as error:
        raise ConfigError(
            f"{key}: {url!r} is not of the form ws://host:port/path or wss://host:port/path"
        ) from error
    return url


def tls_for(url: str, *, verify: bool = True) -> ssl.SSLContext | None:
    """Return the TLS context of a ``wss://`` address, None for others. Reads the
    machine's certificates (20 ms), so call it once.
    """
    if not url.startswith("wss://"):
        return None
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _kind_of_no_answer(error: InvalidMessage) -> FailureKind:
    """Distinguish a connection that ended before the answer from an answer that is no
    HTTP.
    """
    ended = isinstance(error.__cause__, EOFError | ConnectionError)
    return FailureKind.CONNECTIVITY if ended else FailureKind.BROKEN
