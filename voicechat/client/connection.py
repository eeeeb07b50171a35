"""The client's WebSocket: its address, its opening, and how its end is reported."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from voicechat.errors import VoiceChatError
from voicechat.proxies import is_loopback

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class ConnectionLostError(VoiceChatError):
    """The connection could not be opened, or was lost. ``code`` is the close code, 1006
    if the peer sent none.
    """

    def __init__(self, code: int, reason: str) -> None:
        """``reason`` is the peer's close reason, or describes the network error."""
        super().__init__(f"connection lost ({code}): {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


@asynccontextmanager
async def open_socket(url: str, key: str) -> AsyncIterator[ClientConnection]:
    """Open the WebSocket. The key is sent in a header, because addresses are logged."""
    try:
        socket = await websockets_connect(
            url,
            additional_headers={"Authorization": f"Bearer {key}"},
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            proxy=None if is_loopback(urlsplit(url).hostname or "") else True,
        )
    except (OSError, InvalidHandshake, InvalidURI) as error:
        host = urlsplit(url).netloc
        raise ConnectionLostError(1006, f"cannot connect to {host}: {error}") from error
    async with socket:
        yield socket


def socket_url(url: str, path: str, query: Mapping[str, str]) -> str:
    """Build the WebSocket address: sets the scheme, and appends the endpoint's path
    unless ``url`` already ends with it, and the query.
    """
    parts = urlsplit(url if "//" in url else f"//{url}")
    scheme = {"https": "wss", "wss": "wss"}.get(parts.scheme, "ws")
    endpoint = path.rsplit("/", 1)[1]
    own_path = (
        parts.path if parts.path.rstrip("/").endswith(endpoint) else parts.path.rstrip("/") + path
    )
    return urlunsplit(
        (
            scheme,
            parts.netloc,
            own_path,
            "&".join(filter(None, (parts.query, urlencode(query)))),
            "",
        )
    )


def lost(error: ConnectionClosed) -> ConnectionLostError:
    """Convert the exception, keeping the peer's close code and reason."""
    return (
        ConnectionLostError(error.rcvd.code, error.rcvd.reason)
        if error.rcvd
        else ConnectionLostError(1006, "")
    )
