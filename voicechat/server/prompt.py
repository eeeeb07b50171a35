"""aiohttp's WebSocket, which shows audio to its user as it arrives.

By itself it queues every message and wakes the task that receives: half of what a microphone's frame costs a server,
and one pass of the loop. Nothing public lets one look first, so this module puts a queue of its own in the place of
aiohttp's, before anything has come. It is the only one that touches what is private there. With an aiohttp that is
another inside, nothing is shown, and everything comes through ``receive``.
"""

import asyncio
from collections.abc import Callable

from aiohttp import WSMessage, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http import WebSocketWriter

_QUEUE_BYTES = 64 * 1024
"""As much as aiohttp's own takes; past twice that the connection is not read."""


class Inbox(WebSocketDataQueue):
    """aiohttp's queue of messages that wait to be received, and who is shown audio before."""

    take: Callable[[bytes], bool] | None = None

    def feed_data(self, data: WSMessage, size: int) -> None:  # type: ignore[override]
        """A message has arrived. Called by the parser, which is deaf to exceptions."""
        if (
            data[0] is WSMsgType.BINARY
            and self.take is not None
            and not self._buffer  # else it would overtake
            and data[1]
            and self.take(data[1])
        ):
            return
        super().feed_data(data, size)


class PromptWebSocket(web.WebSocketResponse):
    """See the module."""

    inbox: Inbox | None = None
    """None: nothing is shown here."""

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        # What came together with the request, aiohttp's parser is given at once: it may be in the middle of a message.
        untouched = getattr(request.protocol, "_message_tail", None) == b""
        super()._post_start(request, protocol, writer)
        if not untouched or getattr(request.protocol, "_payload_parser", None) is not self._parser:
            return
        try:
            inbox = Inbox(request.protocol, _QUEUE_BYTES, loop=asyncio.get_running_loop())
            parser = WebSocketReader(inbox, self._max_msg_size, compress=False, decode_text=True)
        except (AttributeError, TypeError):
            return
        self._reader, self._parser, self.inbox = inbox, parser, inbox
        request.protocol._payload_parser = parser
