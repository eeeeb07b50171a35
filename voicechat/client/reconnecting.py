"""A conversation that reconnects: it is opened again with the same settings, and the
caller is notified.

The server's history and the turn in progress are lost with the connection. A
recognition stream loses nothing: see `voicechat.client.resuming`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeAlias

from voicechat.client.backoff import Backoff, ReconnectAttempts, is_final
from voicechat.client.connection import ConnectionLostError
from voicechat.client.conversation import ClientConversation, connect
from voicechat.client.messages import ServerMessage
from voicechat.client.receive_queue import ReceiveQueue, background_task
from voicechat.errors import AdmissionError

Opening: TypeAlias = Callable[[], AbstractAsyncContextManager[ClientConversation]]
Request: TypeAlias = Callable[[ClientConversation], Awaitable[None]]

PATIENT = Backoff()


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The conversation was reconnected with the settings of the last ``update``. Begin
    the turn again.
    """


class ReconnectingConversation:
    """Like ``ClientConversation``; its iteration also yields ``Reconnected``.

    Requests and audio sent while disconnected are dropped, because their turn is lost.
    Once no further attempt is made, every method raises the error of the last attempt:
    ``ConnectionLostError`` or ``AdmissionError``.
    """

    def __init__(self, open_one: Opening, backoff: Backoff) -> None:
        self._open_one = open_one
        self._attempts = ReconnectAttempts(backoff, is_final)
        self._conversation: ClientConversation | None = None
        self._settings: Mapping[str, object] | None = None
        self._queue: ReceiveQueue[ServerMessage | Reconnected] = ReceiveQueue()
        self._first = asyncio.Event()

    async def update(self, settings: Mapping[str, object]) -> None:
        """Configure the conversation, now and after each reconnection."""
        self._settings = settings
        await self._request(lambda conversation: conversation.update(settings))

    async def send_audio(self, audio: bytes) -> None:
        """Send the next piece of the user's speech; dropped while disconnected."""
        await self._request(lambda conversation: conversation.send_audio(audio))

    async def complete(self) -> None:
        """End the user's turn."""
        await self._request(ClientConversation.complete)

    async def clear(self) -> None:
        """Discard the audio since the last turn."""
        await self._request(ClientConversation.clear)

    async def clear_history(self) -> None:
        """Clear the conversation's history on the server."""
        await self._request(ClientConversation.clear_history)

    async def cancel(self) -> None:
        """Interrupt the reply."""
        await self._request(ClientConversation.cancel)

    async def send_text(self, content: str) -> None:
        """Send typed text as a turn of its own."""
        await self._request(lambda conversation: conversation.send_text(content))

    async def answer_tool(self, call_id: str, content: str) -> None:
        """Answer a ``ToolCallMessage``. The server answers a call of a lost connection
        with an ErrorMessage.
        """
        await self._request(lambda conversation: conversation.answer_tool(call_id, content))

    async def report_played(self, reply_id: str, played_ms: int) -> None:
        """Report how much of a reply was played."""
        await self._request(lambda conversation: conversation.report_played(reply_id, played_ms))

    def __aiter__(self) -> Self:
        """Iterate over the messages."""
        return self

    async def __anext__(self) -> ServerMessage | Reconnected:
        """Wait for the next message; the iteration ends when the server closes
        normally.
        """
        return await self._queue.get_item()

    async def wait_connected(self) -> None:
        """Wait for the first connection. Raises the error of the first attempt."""
        await self._first.wait()
        if self._queue.error is not None:
            raise self._queue.error

    async def keep_connected(self) -> None:
        """Connect and reconnect until the server closes normally or an error is
        permanent.
        """
        try:
            while not await self._hold():
                pass
            await self._queue.close()
        except (ConnectionLostError, AdmissionError) as error:
            await self._queue.close(error)
        finally:
            self._first.set()

    async def _hold(self) -> bool:
        """Run one connection. Returns True if the server closed it normally; False once
        the next attempt is due.
        """
        try:
            async with self._open_one() as conversation:
                await self._serve(conversation)
        except (ConnectionLostError, AdmissionError) as error:
            await self._attempts.wait_for_retry(error)
            return False
        return True

    async def _serve(self, conversation: ClientConversation) -> None:
        if self._settings is not None:
            await conversation.update(self._settings)
        if self._attempts.connected_before:
            await self._queue.put_item(Reconnected())
        self._attempts.note_success()
        self._conversation = conversation
        self._first.set()
        try:
            async for message in conversation:
                await self._queue.put_item(message)
        finally:
            self._conversation = None

    async def _request(self, request: Request) -> None:
        if self._queue.error is not None:
            raise self._queue.error
        if self._conversation is None:
            return
        try:
            await request(self._conversation)
        except ConnectionLostError:
            return  # The iteration yields `Reconnected` or raises the error.


@asynccontextmanager
async def stay_connected(
    url: str,
    *,
    key: str,
    model: str = "default",
    recognizer: str = "default",
    synthesizer: str = "default",
    backoff: Backoff = PATIENT,
) -> AsyncIterator[ReconnectingConversation]:
    """Open a conversation that reconnects whenever its connection is lost; see
    ``connect``.

    Iterate continuously: the client stops reading after 256 unread messages.
    """
    opening = partial(
        connect, url, key=key, model=model, recognizer=recognizer, synthesizer=synthesizer
    )
    conversation = ReconnectingConversation(opening, backoff)
    async with background_task(conversation.keep_connected()):
        await conversation.wait_connected()
        yield conversation
