"""The client of the recognition endpoint."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from voicechat.client.connection import (
    OPEN_TIMEOUT_S,
    ConnectionLostError,
    lost,
    open_socket,
    socket_url,
)
from voicechat.client.messages import TranscriptMessage, parse_message

STREAM_PATH = "/api/open-apis/projects/default/easyllms/stream-speech"


class ClientRecognitionStream:
    """An open recognition stream. Iterate over it for results. The iteration ends after
    ``finish_audio`` once all results have arrived.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send_audio(self, audio: bytes) -> None:
        """Send the next piece of audio. Waits while the server does not read."""
        await self._send(audio)

    async def finish_audio(self) -> None:
        """Signal the end of the audio. The last results follow."""
        await self._send("BYE")

    async def _send(self, frame: str | bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as error:
            raise lost(error) from error

    def __aiter__(self) -> Self:
        """Iterate over the results."""
        return self

    async def __anext__(self) -> TranscriptMessage:
        """Wait for the next result; raises StopAsyncIteration on a normal close."""
        while True:
            try:
                message = parse_message(await self._socket.recv())
            except ConnectionClosedOK:
                raise StopAsyncIteration from None
            except ConnectionClosed as error:
                raise lost(error) from error
            if isinstance(message, TranscriptMessage):
                return message


@asynccontextmanager
async def recognise_stream(
    url: str,
    *,
    key: str,
    audio_format: str = "pcm",
    sample_rate_hz: int = 16000,
    heartbeat: bool = False,
    recognizer: str = "default",
) -> AsyncIterator[ClientRecognitionStream]:
    """Open a recognition stream. The context is entered once the server is ready.

    Raises ConnectionLostError if the server refuses or does not answer within 10 s.
    """
    query = {
        "easyllm_id": recognizer,
        "format": audio_format,
        "sample_rate": str(sample_rate_hz),
        "heartbeat": "true" if heartbeat else "false",
    }
    async with open_socket(socket_url(url, STREAM_PATH, query), key) as socket:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                ready = await socket.recv()
        except ConnectionClosed as error:
            raise lost(error) from error
        except TimeoutError as error:
            raise ConnectionLostError(
                1006, f"the server said nothing for {OPEN_TIMEOUT_S:g} s"
            ) from error
        if isinstance(ready, bytes) or '"ok"' not in ready:
            raise ConnectionLostError(1002, "the server did not begin with its status")
        yield ClientRecognitionStream(socket)
