"""A recognition stream that resumes after a lost connection. No audio and no result is
lost or duplicated.

When a client resumes its session, the server names the next byte of audio that it
expects. The client keeps sent audio in a retransmit buffer until it is acknowledged. A
pong acknowledges all audio sent before its ping, because WebSocket frames are processed
in order (RFC 6455, 5.4).
"""

import asyncio
import secrets
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from voicechat.client.backoff import Backoff, ReconnectAttempts
from voicechat.client.connection import (
    OPEN_TIMEOUT_S,
    ConnectionLostError,
    lost,
    open_socket,
    socket_url,
)
from voicechat.client.messages import TranscriptMessage, parse_message
from voicechat.client.receive_queue import ReceiveQueue, background_task
from voicechat.client.recognition import STREAM_PATH
from voicechat.errors import VoiceChatError

KEPT_BYTES = 1024 * 1024
"""Bound of the retransmit buffer: about 30 s of s16le at 16 kHz. ``send_audio`` waits
when it is full.
"""
FRAME_BYTES = 32 * 1024
"""Size of one WebSocket message. The server accepts up to 1 MiB (contract)."""
PING_EVERY_BYTES = 64 * 1024
"""A ping is sent after this many bytes of audio."""
WITHIN_RESUMPTION = Backoff(give_up_s=25.0)
"""The server keeps a session for 30 s (contract)."""
_ABNORMAL = 1006


class RetransmitBuffer:
    """The unacknowledged audio of a stream: the bytes from ``start`` to ``end``."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.start = 0
        self.end = 0

    def append(self, piece: bytes) -> None:
        """Add the next piece."""
        self._pieces.append(piece)
        self.end += len(piece)

    def drop_before(self, position: int) -> None:
        """Discard the pieces that end at or before ``position``."""
        while self._pieces and self.start + len(self._pieces[0]) <= position:
            self.start += len(self._pieces.popleft())

    def audio_from(self, position: int) -> bytes:
        """Return the rest of the piece that contains ``position``; empty at the end."""
        start = self.start
        for piece in self._pieces:
            if position < start + len(piece):
                return piece[position - start :]
            start += len(piece)
        return b""


class ResumingRecognition:
    """Like ``ClientRecognitionStream``, but resumes after a lost connection.

    Once no further attempt is made, every method raises ``ConnectionLostError``.
    """

    def __init__(self, url: str, key: str, query: Mapping[str, str], backoff: Backoff) -> None:
        self._url, self._key, self._query = url, key, dict(query)
        self._session = secrets.token_hex(16)
        self._attempts = ReconnectAttempts(backoff, _is_final)
        self._audio = RetransmitBuffer()
        self._finishing = False
        self._received = 0
        self._queue: ReceiveQueue[TranscriptMessage] = ReceiveQueue()
        self._first = asyncio.Event()
        self._changed = asyncio.Event()

    async def send_audio(self, audio: bytes) -> None:
        """Send the next piece of audio. Waits while the retransmit buffer is full."""
        for start in range(0, len(audio), FRAME_BYTES):
            await self._until(
                lambda: self._queue.error or self._audio.end - self._audio.start < KEPT_BYTES
            )
            self._check()
            self._audio.append(audio[start : start + FRAME_BYTES])
            self._changed.set()

    async def finish_audio(self) -> None:
        """Signal the end of the audio. The last results follow."""
        self._check()
        self._finishing = True
        self._changed.set()

    def __aiter__(self) -> Self:
        """Iterate over the results."""
        return self

    async def __anext__(self) -> TranscriptMessage:
        """Wait for the next result; raises StopAsyncIteration on a normal close."""
        return await self._queue.get_item()

    def _check(self) -> None:
        if self._queue.error is not None:
            raise self._queue.error

    async def wait_connected(self) -> None:
        """Wait for the first connection. Raises the error of the first attempt."""
        await self._first.wait()
        self._check()

    async def keep_connected(self) -> None:
        """Connect and resume until the server closes normally or an error is final."""
        try:
            while not await self._hold():
                pass
            await self._queue.close()
        except ConnectionLostError as error:
            await self._queue.close(error)
        finally:
            self._first.set()
            self._changed.set()

    async def _hold(self) -> bool:
        """Run one connection. Returns True if the server closed it normally; False once
        the next attempt is due.
        """
        query = self._query | {"session": self._session, "received": str(self._received)}
        try:
            async with open_socket(socket_url(self._url, STREAM_PATH, query), self._key) as socket:
                position = await self._read_greeting(socket)
                self._attempts.note_success()
                self._first.set()
                async with background_task(self._send(socket, position)):
                    await self._receive(socket)
        except ConnectionLostError as error:
            await self._attempts.wait_for_retry(error)
            return False
        return True

    async def _read_greeting(self, socket: ClientConnection) -> int:
        """Return the position of the next byte of audio that the server expects."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                greeting = _object(await socket.recv())
        except ConnectionClosed as error:
            raise lost(error) from error
        except TimeoutError as error:
            raise ConnectionLostError(
                _ABNORMAL, f"the server said nothing for {OPEN_TIMEOUT_S:g} s"
            ) from error
        position = greeting.get("offset")
        if greeting.get("status") != "ok" or not isinstance(position, int):
            raise ConnectionLostError(1002, "the server does not offer to resume")
        if not self._audio.start <= position <= self._audio.end or (
            self._received and not position
        ):
            raise ConnectionLostError(1002, "the server has forgotten the session")
        return position

    async def _send(self, socket: ClientConnection, position: int) -> None:
        """Send all audio from ``position`` on as it becomes available. ``_receive``
        reports a lost connection.
        """
        unacknowledged_bytes = 0
        try:
            while True:
                await self._until(partial(self._is_due, position))
                piece = self._audio.audio_from(position)
                if not piece:
                    await socket.send("BYE")
                    return
                await socket.send(piece)
                position += len(piece)
                unacknowledged_bytes += len(piece)
                if unacknowledged_bytes >= PING_EVERY_BYTES:
                    unacknowledged_bytes = 0
                    pong = await socket.ping()
                    pong.add_done_callback(partial(self._acknowledge, position))  # type: ignore[attr-defined]
        except ConnectionClosed:
            return

    def _is_due(self, position: int) -> bool:
        return position < self._audio.end or self._finishing

    def _acknowledge(self, position: int, pong: "Future[float]") -> None:
        if not pong.cancelled() and pong.exception() is None:
            self._audio.drop_before(position)
            self._changed.set()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _receive(self, socket: ClientConnection) -> None:
        while True:
            try:
                frame = await socket.recv()
            except ConnectionClosedOK:
                return
            except ConnectionClosed as error:
                raise lost(error) from error
            result = parse_message(frame)
            number = _object(frame).get("number")
            if isinstance(result, TranscriptMessage) and isinstance(number, int):
                self._received = number
                await self._queue.put_item(result)


@asynccontextmanager
async def stay_recognising(
    url: str,
    *,
    key: str,
    audio_format: str = "pcm",
    sample_rate_hz: int = 16000,
    heartbeat: bool = False,
    recognizer: str = "default",
    backoff: Backoff = WITHIN_RESUMPTION,
) -> AsyncIterator[ResumingRecognition]:
    """Open a recognition stream that resumes whenever its connection is lost; see
    ``recognise_stream``.

    Iterate continuously: the client stops reading after 256 unread results.
    """
    query = {
        "easyllm_id": recognizer,
        "format": audio_format,
        "sample_rate": str(sample_rate_hz),
        "heartbeat": "true" if heartbeat else "false",
    }
    stream = ResumingRecognition(url, key, query, backoff)
    async with background_task(stream.keep_connected()):
        await stream.wait_connected()
        yield stream


def _is_final(error: VoiceChatError) -> bool:
    """Whether the server ended the session. A lost connection has no close code."""
    return not isinstance(error, ConnectionLostError) or error.code != _ABNORMAL


def _object(frame: str | bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(frame)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {}
