"""The client of the conversation endpoint."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
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
from voicechat.client.messages import CreatedMessage, ServerMessage, parse_message
from voicechat.client.tool_call_assembler import ToolCallAssembler
from voicechat.errors import AdmissionError, Status

CHAT_PATH = "/api/open-apis/projects/default/chat/speech-chat"
PING_S = 20.0
"""The server closes a connection on which it received nothing for 60 s (contract)."""


class ClientConversation:
    """An open conversation. Iterate over it to receive messages; the iteration ends
    when the server closes normally.

    Every method sends one request and returns once it was written to the network; it
    waits while the server does not read. Answers arrive as messages. Cancelling a
    method leaves the conversation usable. All methods raise ConnectionLostError once
    the connection is lost.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._tool_calls = ToolCallAssembler()
        self._received: deque[ServerMessage] = deque()
        self.note = ""
        """A remark that the server sent when the conversation opened, for example that
        a different service than the requested one is used.
        """

    async def update(self, settings: Mapping[str, object]) -> None:
        """Configure the conversation before its first audio. ``chat_settings`` builds
        the usual settings.
        """
        await self._send({"event_type": "chat.update", "message": json.dumps(settings)})

    async def send_audio(self, audio: bytes) -> None:
        """Send the next piece of the user's speech, in the configured format."""
        try:
            await self._socket.send(audio)
        except ConnectionClosed as error:
            raise lost(error) from error

    async def complete(self) -> None:
        """End the user's turn. The reply follows."""
        await self._send({"event_type": "input_audio_buffer.complete"})

    async def clear(self) -> None:
        """Discard the audio since the last turn."""
        await self._send({"event_type": "input_audio_buffer.clear"})

    async def clear_history(self) -> None:
        """Clear the conversation's history on the server."""
        await self._send({"event_type": "conversation.clear"})

    async def cancel(self) -> None:
        """Interrupt the reply."""
        await self._send({"event_type": "conversation.chat.cancel"})

    async def send_text(self, content: str) -> None:
        """Send typed text as a turn of its own."""
        await self._send(
            {"event_type": "conversation.message.create", "role": "user", "content": content}
        )

    async def answer_tool(self, call_id: str, content: str) -> None:
        """Answer a ``ToolCallMessage``. The reply continues after the last answer. The
        server answers an unknown or late ``call_id`` with an ErrorMessage.
        """
        answer = {"role": "tool", "tool_call_id": call_id, "content": content}
        await self._send({"event_type": "conversation.message.create", **answer})

    async def report_played(self, reply_id: str, played_ms: int) -> None:
        """Report how much of a reply was played. The history keeps an interrupted reply
        up to this position.
        """
        await self._send(
            {"event_type": "conversation.audio.played", "reply": reply_id, "played_ms": played_ms}
        )

    async def ping(self) -> None:
        """Send a ping. ``connect`` sends one every 20 s by itself."""
        await self._send({"event_type": "ping"})

    async def receive(self) -> ServerMessage:
        """Wait for the next message of a known type; others are skipped."""
        while not self._received:
            try:
                message = parse_message(await self._socket.recv())
            except ConnectionClosed as error:
                raise lost(error) from error
            if message is not None:
                self._received += self._tool_calls.add_message(message)
        return self._received.popleft()

    def __aiter__(self) -> Self:
        """Iterate over the messages."""
        return self

    async def __anext__(self) -> ServerMessage:
        """Wait for the next message; the iteration ends when the server closes normally
        (code 1000 or 1001).
        """
        try:
            return await self.receive()
        except ConnectionLostError as error:
            if isinstance(error.__cause__, ConnectionClosedOK):
                raise StopAsyncIteration from None
            raise

    async def _send(self, request: Mapping[str, object]) -> None:
        try:
            await self._socket.send(json.dumps(request))
        except ConnectionClosed as error:
            raise lost(error) from error

    async def keep_alive(self) -> None:
        """Ping every 20 s until cancelled. ``connect`` runs this."""
        while True:
            await asyncio.sleep(PING_S)
            try:
                await self.ping()
            except ConnectionLostError:
                return  # The caller's next send or receive raises.


def chat_settings(
    *,
    input_format: str = "",
    sample_rate_hz: int | None = None,
    output_format: str = "",
    voice: str = "",
    messages: tuple[Mapping[str, object], ...] = (),
    tools: tuple[Mapping[str, object], ...] = (),
    turn_detection: Mapping[str, object] | None = None,
    binary_audio: bool = False,
) -> dict[str, object]:
    """Build the settings of ``ClientConversation.update``. Omitted settings keep the
    contract's defaults.

    ``tools`` are functions in OpenAI's form that the model may call. Each call arrives
    as a ``ToolCallMessage``; answer it with ``answer_tool``. ``turn_detection`` enables
    hands-free mode, with the contract's defaults (``{}``) or with the given fields.
    ``binary_audio`` requests the reply's audio as binary messages, a quarter smaller.
    """
    completion: dict[str, object] = {"messages": list(messages), "stream": True}
    recognition = {"format": input_format, "sample_rate": sample_rate_hz}
    ours: dict[str, object] = {"downlink": "binary"} if binary_audio else {}
    if tools:
        completion["tools"] = list(tools)
        ours["answers_tools"] = True
    if turn_detection is not None:
        ours["turn_detection"] = {"type": "server_vad", **turn_detection}
    return {
        **ours,
        "create_transcription_task_req": {
            "speech_recognition_param": {k: v for k, v in recognition.items() if v}
        },
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": completion,
            "speech_synthesis_req": {
                "stream": True,
                "synthesis_param": {"format": output_format, "voice": voice},
            },
        },
    }


@asynccontextmanager
async def connect(
    url: str,
    *,
    key: str,
    model: str = "default",
    recognizer: str = "default",
    synthesizer: str = "default",
    announce_end: bool = False,
) -> AsyncIterator[ClientConversation]:
    """Open a conversation. It is closed when the context ends, within 2 s.

    ``url`` is the server's address (http, https, ws or wss), with or without the
    endpoint's path. ``announce_end``: a ``GoingAwayMessage`` tells when the server is
    going to stop. Raises AdmissionError if the server refuses, ConnectionLostError if
    it cannot be reached. Cancelling closes the socket.
    """
    query = {"model": model, "asr_easyllm_id": recognizer, "tts_easyllm_id": synthesizer}
    if announce_end:
        query["going_away"] = "1"
    async with open_socket(socket_url(url, CHAT_PATH, query), key) as socket:
        conversation = ClientConversation(socket)
        created = await _first_message(conversation)
        if not isinstance(created, CreatedMessage):
            raise ConnectionLostError(1002, "the server did not begin with chat.created")
        if not created.granted:
            raise AdmissionError(_status(created.status), created.message)
        conversation.note = created.message
        failure: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            keeping_alive = tasks.create_task(conversation.keep_alive())
            try:
                yield conversation
            except Exception as error:  # noqa: BLE001 - raised below: the task group would wrap it into a group
                failure = error
            finally:
                keeping_alive.cancel()
        if failure is not None:
            raise failure


async def _first_message(conversation: ClientConversation) -> ServerMessage:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            return await conversation.receive()
    except TimeoutError as error:
        raise ConnectionLostError(
            1006, f"the server said nothing for {OPEN_TIMEOUT_S:g} s"
        ) from error


def _status(code: int) -> Status:
    return Status(code) if code in Status._value2member_map_ else Status.INTERNAL
