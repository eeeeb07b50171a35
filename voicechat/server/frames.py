"""A parser of WebSocket frames (RFC 6455) that replaces aiohttp's.

aiohttp's parser handles everything that has arrived in one go, however many frames that
is, accepts unmasked frames, and refuses a message of exactly the size limit. This one
parses at most 32 frames of a client per iteration of the event loop, so that one
client's flood does not delay the others. A client that sends 40,000 empty frames at
once would otherwise stop every session. It also offers audio to its consumer as it
arrives, which saves a queue and a task switch per frame: a microphone frame of 640
bytes that arrives alone takes 0.9 us of CPU here, and 2.4 us with aiohttp's parser in
C, its queue and the consumer's task. When three arrive together, a frame takes 0.9 and
1.1 us.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.models import WS_CLOSING_MESSAGE
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import WebSocketWriter
from aiohttp.streams import EofStream

FRAMES_IN_A_PASS = 32
"""Frames of one client that are parsed in one iteration of the event loop."""
BYTES_PER_FRAME = 16 * 1024
"""A longer frame counts as several: copying and unmasking take time per byte."""
QUEUE_BYTES = 128 * 1024
"""Backpressure: with more bytes of messages queued, the connection is not read."""
MESSAGE_OVERHEAD_BYTES = 128
"""Added to the size of each queued message, so that empty messages cannot fill the
memory.
"""
DROPPED_BYTES = 16 * 1024 * 1024
"""How much is read and dropped after the server's close frame: more than the buffers of
both systems hold, so that all data of a client that stops sending when it reads the
frame is consumed.
"""
QUIET_S = 0.25

_FIN = 0x80
_RESERVED = 0x70
_MASKED = 0x80
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})
_MASK_BYTES = 4
_HEAD_126_BYTES = 8
"""The head of a frame with 126 to 65,535 bytes: 2 bytes, 2 of the length, 4 of the
mask.
"""
_MAX_CONTROL_BYTES = 125
_CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""Codes that are valid in a close frame (RFC 6455, 7.4, and its registry)."""


class MessageQueue:
    """The received messages. aiohttp calls this the reader of a WebSocket."""

    def __init__(self) -> None:
        self.take_audio: Callable[[str | bytes], bool] = lambda _: False
        """Offered each text or binary message while the queue is empty; True: the
        message is not queued.
        """
        self.on_read: Callable[[], None] = lambda: None
        """Called after a message has been received."""
        self.client_closed = asyncio.Event()
        """Set when the client has sent a close frame or closed the connection, or when
        ``DROPPED_BYTES`` have been dropped.
        """
        self._broken = False
        """Whether the client has broken the protocol: it is not parsed any further."""
        self.size_bytes = 0
        self.waiting: deque[tuple[WSMessage, int]] = deque()
        """Messages and their sizes, in order."""
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._over = False
        self._dropping = False
        self._dropped_bytes = 0

    def drop_the_rest(self, last: WSMessage | None) -> None:
        """Drop all queued messages and everything that arrives later. ``last`` is
        received instead.
        """
        self.waiting.clear()
        self.size_bytes = 0
        if last is not None:
            self.put_message(last, 0)
        self.take_audio = lambda _: False
        self._dropping = True
        self.on_read()

    def drop(self, size_bytes: int) -> None:
        """Count dropped bytes."""
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > DROPPED_BYTES:
            self.client_closed.set()

    async def wait_closed(self) -> None:
        """Wait for ``client_closed``; after a broken frame, wait until nothing has
        arrived for ``QUIET_S``, because a close frame cannot be found in the data that
        follows.
        """
        dropped_bytes = -1
        while not self.client_closed.is_set() and dropped_bytes != self._dropped_bytes:
            dropped_bytes = self._dropped_bytes if self._broken else -1
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET_S if self._broken else None):
                    await self.client_closed.wait()

    def feed_data(self, message: WSMessage, size_bytes: int) -> None:
        """Offer a message to ``take_audio``, or queue it."""
        offered = message[1] if message[0] in (WSMsgType.BINARY, WSMsgType.TEXT) else b""
        if not (offered and not self.waiting and self.take_audio(offered)):
            self.put_message(message, size_bytes)

    def put_message(self, message: WSMessage, size_bytes: int) -> None:
        """Queue a message with a payload of ``size_bytes``."""
        size_bytes += MESSAGE_OVERHEAD_BYTES
        if message[0] is WSMsgType.CLOSE:
            self.client_closed.set()
        if self._dropping:
            self.drop(size_bytes)
            return
        self.waiting.append((message, size_bytes))
        self.size_bytes += size_bytes
        self._wake()

    def feed_eof(self) -> None:
        """Note that no more messages will come."""
        self.client_closed.set()
        self._over = True
        self._wake()

    def set_exception(self, error: Exception) -> None:
        """Make ``read`` raise ``error`` once all queued messages have been received."""
        self._broken = True
        self._error = error
        self._wake()

    def release_references(self) -> None:
        """Drop the queued messages and all callbacks, and end the queue."""
        self.waiting.clear()
        self._error = None
        self.take_audio = lambda _: False
        self.on_read = lambda: None
        self._over = True
        self._wake()

    async def read(self) -> WSMessage:
        """Receive a message. Raises ``WebSocketError``, or ``EofStream`` at the end.

        Cancelling loses no message.
        """
        while not self.waiting:
            if self._error is not None:
                raise self._error
            if self._over:
                raise EofStream
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message, size_bytes = self.waiting.popleft()
        self.size_bytes -= size_bytes
        self.on_read()
        return message

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class FrameReader:
    """Parses a client's bytes and queues the messages. aiohttp calls this a parser."""

    def __init__(self, protocol: BaseProtocol, queue: MessageQueue, limit_bytes: int) -> None:
        """``limit_bytes`` bounds a message, whether of one frame or of several."""
        self._protocol = protocol
        self._queue = queue
        self._waiting = queue.waiting
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        """Unparsed bytes: at most an incomplete frame and one read of the socket."""
        self._partial: bytearray | None = None
        """The fragments of a message so far; None between messages."""
        self._partial_opcode = _CONTINUATION
        self._pass_s = 0.0
        self._parsed = 0
        """Frames parsed in this iteration of the loop; ``loop.time()`` tells iterations
        apart.
        """
        self._due = False
        """Whether ``_go_on`` is scheduled for the next iteration."""
        self._paused = False
        """Whether reading is paused, because enough data is not parsed or received yet.
        """
        self._held = False
        """See ``hold``."""
        self._eof = False
        self._done = False
        """Whether a close frame or a protocol error has come: the bytes after it are
        dropped.
        """
        queue.on_read = self._on_read

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Parse received bytes.

        Returns whether the connection shall be closed, and b"" for the rest.
        """
        # Fast path: most microphone frames, binary or packed into text, have 126 to
        # 65,535 bytes and arrive alone, with nothing queued. Offering them at once
        # saves the calls of the general case.
        if (
            len(data) > _HEAD_126_BYTES
            and (data[0] == _FIN | _BINARY or data[0] == _FIN | _TEXT)
            and data[1] == _MASKED | 126
            and len(data) == _HEAD_126_BYTES + (data[2] << 8 | data[3])
            and len(data) <= _HEAD_126_BYTES + self._limit_bytes
            and not (self._buffer or self._waiting or self._partial is not None or self._done)
        ):
            payload = bytearray(data[_HEAD_126_BYTES:])
            websocket_mask(data[4:_HEAD_126_BYTES], payload)
            binary = data[0] == _FIN | _BINARY
            try:
                content = bytes(payload) if binary else _text(payload)
            except WebSocketError:
                pass  # the general case reports it
            else:
                if not self._queue.take_audio(content):
                    kind = WSMsgType.BINARY if binary else WSMsgType.TEXT
                    self._queue.put_message(WSMessage(kind, content, ""), len(payload))
                return False, b""
        if self._done:
            self._queue.drop(len(data))
            return True, b""
        self._buffer += data
        if not self._paused:
            self._parse()
        return self._done, b""

    def feed_eof(self) -> None:
        """Note that the connection is gone. What arrived before can still be
        received.
        """
        self._eof = True
        if not self._paused:
            self._parse()

    def hold(self, held: bool) -> None:
        """Pause reading while ``held``. Data that was already read is still parsed."""
        if held is self._held:
            return
        self._held = held
        if not self._paused:
            self._set_reading(not held)

    def _on_read(self) -> None:
        if self._paused and not self._due and self._queue.size_bytes <= QUEUE_BYTES // 2:
            self._go_on()

    def _go_on(self) -> None:
        self._due = False
        self._parsed = 0
        self._parse()

    def _parse(self) -> None:
        now_s = self._loop.time()
        if now_s != self._pass_s:
            self._pass_s, self._parsed = now_s, 0
        start = 0
        incomplete = False
        try:
            while not (incomplete or self._done or self._is_over_pass or self._is_full):
                length = self._parse_frame(start)
                incomplete = not length
                start += length
                self._parsed += 1 + length // BYTES_PER_FRAME
        except WebSocketError as error:
            self._done = True
            self._queue.set_exception(error)
        del self._buffer[:start]
        self._settle(incomplete)

    def _settle(self, incomplete: bool) -> None:
        """Resume reading, or schedule the parsing of the rest."""
        if self._done:
            self._buffer.clear()
            self._pause(False)
            if self._eof:
                self._queue.feed_eof()
        elif incomplete or not self._buffer:
            self._pause(self._is_full)
            if self._eof:
                self._queue.feed_eof()
        else:
            self._pause(True)
            if not self._is_full and not self._due:
                self._due = True
                self._loop.call_soon(self._go_on)

    @property
    def _is_over_pass(self) -> bool:
        return self._parsed >= FRAMES_IN_A_PASS

    @property
    def _is_full(self) -> bool:
        return self._queue.size_bytes > QUEUE_BYTES

    def _pause(self, paused: bool) -> None:
        if paused is self._paused:
            return
        self._paused = paused
        if not self._held:
            self._set_reading(not paused)

    def _set_reading(self, reading: bool) -> None:
        if reading:
            self._protocol.resume_reading()
        else:
            self._protocol.pause_reading()

    def _parse_frame(self, start: int) -> int:
        """Parse the frame that begins at ``start``; returns its length, 0 while it is
        incomplete.
        """
        buffer = self._buffer
        available = len(buffer) - start
        if available < 2:
            return 0  # opcode and length have not arrived
        first, second = buffer[start], buffer[start + 1]
        opcode, length = first & 0x0F, second & 0x7F
        self._check_head(first, second)
        header_bytes = 2
        if length > _MAX_CONTROL_BYTES:  # 126 or 127: an extended length follows
            length_bytes = 2 if length == 126 else 8
            header_bytes += length_bytes
            if available < header_bytes:
                return 0
            length = int.from_bytes(buffer[start + 2 : start + header_bytes], "big")
        if opcode < _CLOSE:
            # Check the limit before the payload arrives, so that it is never buffered.
            self._check_order(opcode)
            if length + len(self._partial or b"") > self._limit_bytes:
                message = f"the message exceeds {self._limit_bytes} bytes"
                raise WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, message)
        end = start + header_bytes + _MASK_BYTES + length
        if len(buffer) < end:
            return 0
        payload = buffer[end - length : end]
        websocket_mask(bytes(buffer[end - length - _MASK_BYTES : end - length]), payload)
        self._take_frame(opcode, payload, final=bool(first & _FIN))
        return end - start

    @staticmethod
    def _check_head(first: int, second: int) -> None:
        """Raise ``WebSocketError`` unless the first two bytes of a frame are valid (RFC
        6455, 5.2).
        """
        opcode = first & 0x0F
        if first & _RESERVED:
            raise _breach("a reserved bit is set")
        if opcode not in _OPCODES:
            raise _breach(f"opcode {opcode} is not known")
        if not second & _MASKED:
            raise _breach("a client's frames must be masked")
        if opcode >= _CLOSE and not (first & _FIN and second & 0x7F <= _MAX_CONTROL_BYTES):
            raise _breach("a control frame is in fragments, or longer than 125 bytes")

    def _check_order(self, opcode: int) -> None:
        """Raise ``WebSocketError`` if a data frame with that opcode may not come
        now.
        """
        if opcode == _CONTINUATION and self._partial is None:
            raise _breach("a continuation without a beginning")
        if opcode != _CONTINUATION and self._partial is not None:
            raise _breach("a new message before the end of the last one")

    def _take_frame(self, opcode: int, payload: bytearray, *, final: bool) -> None:
        if opcode >= _CLOSE:
            self._take_control(opcode, bytes(payload))
            return
        if not final or self._partial is not None:
            if self._partial is None:
                self._partial, self._partial_opcode = bytearray(), opcode
            self._partial += payload
            if not final:
                return
            payload, opcode = self._partial, self._partial_opcode
            self._partial = None
        self._queue.feed_data(_message(opcode, payload), len(payload))

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            message = WSMessage(WSMsgType.PING, payload, "")
        elif opcode == _PONG:
            message = WSMessage(WSMsgType.PONG, payload, "")
        else:
            message = _close_message(payload)
            self._done = True
        self._queue.feed_data(message, len(payload))


class FramedWebSocket(web.WebSocketResponse):
    """aiohttp's WebSocket with this module's parser, and a close that clients can read.

    aiohttp closes the connection as soon as its close frame is written if a task is
    receiving, or after a protocol error. The system then resets the connection of a
    client that is still sending, and the client loses the code and the reason. Here the
    connection stays open until the client has closed it; see ``linger``.
    """

    def __init__(
        self,
        *,
        limit_bytes: int,
        close_s: float,
        write_ahead_bytes: int,
        protocols: Sequence[str] = (),
    ) -> None:
        """``close_s`` bounds ``linger``; ``write_ahead_bytes`` is aiohttp's
        ``writer_limit``.

        ``protocols``: the supported subprotocols, the preferred one first.
        """
        super().__init__(
            protocols=protocols,
            autoping=False,
            compress=False,  # deflate costs 107 KiB a connection and gains nothing on audio
            writer_limit=write_ahead_bytes,
        )
        self._limit_bytes = limit_bytes
        self._close_s = close_s
        self.queue = MessageQueue()
        self.hold_reading: Callable[[bool], None] = lambda _: None
        """See ``FrameReader.hold``. Does nothing before the connection is open."""

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Send a close frame, and drop data that still arrives. Returns whether this
        call sent it.

        A pending ``receive`` ends. The connection is closed by ``linger``.
        """
        if self._writer is None:
            raise RuntimeError("the connection is not open yet")
        if self._closed:
            return False
        self._set_closed()
        try:
            await self._writer.close(code, message)
        except ConnectionError:
            self.queue.client_closed.set()
        self.queue.drop_the_rest(WS_CLOSING_MESSAGE if self._waiting else None)
        self.hold_reading(False)
        return True

    async def linger(self) -> None:
        """If a close frame has been sent, wait until the client has closed, too, for
        ``close_s`` at most, and close the connection.
        """
        transport = self._req.transport if self._req is not None else None
        if not self._closed or transport is None:
            return
        try:
            async with asyncio.timeout(self._close_s):
                await self.queue.wait_closed()
            transport.close()
        except TimeoutError:
            transport.abort()

    def release_references(self) -> None:
        """Break the reference cycles through this object. Call it when nothing is
        received any more.

        Otherwise each connection and its queued messages would wait for a full garbage
        collection, which is rare.
        """
        self.queue.release_references()
        self.hold_reading = lambda _: None
        self._exception = None  # its traceback references the frames of this object's methods

    def _post_start(
        self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter
    ) -> None:
        # Like aiohttp's method, but with this module's queue and parser.
        self._ws_protocol = protocol
        self._writer = writer
        reader = FrameReader(request.protocol, self.queue, self._limit_bytes)
        self._reader = self.queue  # type: ignore[assignment]
        self.hold_reading = reader.hold
        request.protocol.set_parser(reader)  # type: ignore[arg-type]
        request.protocol.keep_alive(False)
        assert request.transport is not None
        request.transport.set_protocol(_Upgraded(request.protocol, reader))


class _Upgraded(asyncio.Protocol):
    """The protocol of an upgraded connection: frames bypass the HTTP handler."""

    def __init__(self, handler: BaseProtocol, reader: FrameReader) -> None:
        self.pause_writing = handler.pause_writing  # type: ignore[method-assign]
        self.resume_writing = handler.resume_writing  # type: ignore[method-assign]
        self.connection_lost = handler.connection_lost  # type: ignore[method-assign]
        self.data_received = reader.feed_data  # type: ignore[method-assign,assignment]


def _breach(message: str) -> WebSocketError:
    return WebSocketError(WSCloseCode.PROTOCOL_ERROR, message)


def _message(opcode: int, payload: bytearray) -> WSMessage:
    if opcode == _BINARY:
        return WSMessage(WSMsgType.BINARY, bytes(payload), "")
    return WSMessage(WSMsgType.TEXT, _text(payload), "")


def _text(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise WebSocketError(WSCloseCode.INVALID_TEXT, "the text is not UTF-8") from None


def _close_message(payload: bytes) -> WSMessage:
    if not payload:
        return WSMessage(WSMsgType.CLOSE, 0, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in _CLOSE_CODES:
        raise _breach(f"{code} is no close code")
    return WSMessage(WSMsgType.CLOSE, code, _text(payload[2:]))
