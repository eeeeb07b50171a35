"""The client of OpenAI's Realtime protocol, against this server or any other that
speaks it. It yields the same messages as the client of the conversation endpoint.
"""

import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from voicechat.client.connection import ConnectionLostError, lost, open_socket, socket_url
from voicechat.client.messages import (
    CanceledMessage,
    ClearedMessage,
    CompletedMessage,
    ErrorMessage,
    ForgottenMessage,
    ReplyAudioMessage,
    ReplyFinishedMessage,
    ReplyTextMessage,
    ServerMessage,
    SpeechStartedMessage,
    SpeechStoppedMessage,
    ToolCallMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
)
from voicechat.errors import Status

PATH = "/v1/realtime"
_NOTHING_TO_CANCEL = "response_cancel_not_active"


class ClientRealtimeConversation:
    """An open conversation, with the methods of ``ClientConversation``.

    The differences: ``update`` takes a Realtime ``session``, at any time; audio is
    s16le mono at 24 kHz in both directions unless the session sets another format;
    ``truncate`` replaces ``report_played``. Only one coroutine may receive.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._received: deque[ServerMessage] = deque()
        self._items: list[str] = []
        """The ids of the conversation's items."""
        self._replies: dict[str, str] = {}
        """The id of each reply's message item, keyed by the reply's id."""
        self._unanswered: set[str] = set()
        """The ids of the tool calls that the caller has not answered."""
        self._calling = ""
        """The id of the reply in progress that has made tool calls, or empty."""
        self._goes_on = False
        """Whether the calls are answered and the next reply must be requested."""
        self._forgetting: set[str] = set()

    async def update(self, session: Mapping[str, object]) -> None:
        """Change the session. Omitted fields keep their values."""
        await self._send("session.update", session={"type": "realtime", **session})

    async def send_audio(self, audio: bytes) -> None:
        """Send the next piece of the user's speech."""
        await self._send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    async def complete(self) -> None:
        """End the user's turn. The reply follows."""
        await self._send("input_audio_buffer.commit")
        await self._send("response.create")

    async def clear(self) -> None:
        """Discard the audio since the last turn."""
        await self._send("input_audio_buffer.clear")

    async def clear_history(self) -> None:
        """Delete all items of the conversation. Answered by ``ForgottenMessage`` if
        there are any.
        """
        self._forgetting |= set(self._items)
        for item_id in list(self._items):
            await self._send("conversation.item.delete", item_id=item_id)

    async def cancel(self) -> None:
        """Interrupt the reply."""
        await self._send("response.cancel")

    async def send_text(self, content: str) -> None:
        """Send typed text as a turn of its own."""
        part = {"type": "input_text", "text": content}
        item = {"type": "message", "role": "user", "content": [part]}
        await self._send("conversation.item.create", item=item)
        await self._send("response.create")

    async def answer_tool(self, call_id: str, content: str) -> None:
        """Answer a ``ToolCallMessage``. The reply continues after the last answer."""
        item = {"type": "function_call_output", "call_id": call_id, "output": content}
        await self._send("conversation.item.create", item=item)
        self._unanswered.discard(call_id)
        self._goes_on = not self._unanswered
        await self._go_on()

    async def truncate(self, reply_id: str, played_ms: int) -> None:
        """Report that no more than ``played_ms`` of an interrupted reply was played."""
        await self._send(
            "conversation.item.truncate",
            item_id=self._replies.get(reply_id, reply_id),
            content_index=0,
            audio_end_ms=played_ms,
        )

    async def receive(self) -> ServerMessage:
        """Wait for the next message of a known type; others are skipped."""
        while not self._received:
            try:
                event = json.loads(await self._socket.recv())
            except ConnectionClosed as error:
                raise lost(error) from error
            reader = _READERS.get(event.get("type", ""))
            if reader is not None:
                self._received += reader(self, event)
            await self._go_on()
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

    async def _go_on(self) -> None:
        """Request the reply to the tools' answers once the reply that called them has
        ended.
        """
        if self._goes_on and not self._calling:
            self._goes_on = False
            await self._send("response.create")

    async def _send(self, event_type: str, **fields: object) -> None:
        try:
            await self._socket.send(json.dumps({"type": event_type, **fields}))
        except ConnectionClosed as error:
            raise lost(error) from error

    # --- the server's events ----------------------------------------------------------

    def _on_added(self, event: "_Event") -> list[ServerMessage]:
        self._items.append(event["item"]["id"])
        return []

    def _on_deleted(self, event: "_Event") -> list[ServerMessage]:
        item_id = event["item_id"]
        if item_id in self._items:
            self._items.remove(item_id)
        if item_id not in self._forgetting:
            return []
        self._forgetting.remove(item_id)
        return [] if self._forgetting else [ForgottenMessage(Status.OK, "")]

    def _on_transcript(self, event: "_Event") -> list[ServerMessage]:
        usage = event.get("usage") or {}
        length_ms = round(usage.get("seconds", 0) * 1000)
        return [TranscriptMessage(event["transcript"], 0, length_ms)]

    def _on_text(self, event: "_Event") -> list[ServerMessage]:
        self._replies[event["response_id"]] = event["item_id"]
        return [ReplyTextMessage(event["response_id"], event["delta"])]

    def _on_audio(self, event: "_Event") -> list[ServerMessage]:
        self._replies[event["response_id"]] = event["item_id"]
        return [ReplyAudioMessage(event["response_id"], base64.b64decode(event["delta"]))]

    def _on_call(self, event: "_Event") -> list[ServerMessage]:
        self._unanswered.add(event["call_id"])
        self._calling = event["response_id"]
        return [
            ToolCallMessage(
                event["response_id"], event["call_id"], event["name"], event["arguments"]
            )
        ]

    def _on_done(self, event: "_Event") -> list[ServerMessage]:
        response = event["response"]
        reply_id, output = response["id"], response.get("output") or []
        if reply_id == self._calling:
            self._calling = ""
            if response["status"] == "completed":
                return []  # the turn continues once the calls are answered
            self._unanswered.clear()
            self._goes_on = False
        details = response.get("status_details") or {}
        ended = TurnCompletedMessage(Status.OK, "")
        match response["status"]:
            case "cancelled":
                reason = details.get("reason", "")
                by_voice = "turn_detected" if reason == "turn_detected" else ""
                return [CanceledMessage(Status.OK, "", by_voice), ended]
            case "failed":
                error = details.get("error") or {}
                return [ErrorMessage(Status.INTERNAL, error.get("message", "")), ended]
            case _:
                said = "".join(
                    part.get("transcript") or part.get("text") or ""
                    for item in output
                    for part in item.get("content", ())
                )
                return [ReplyFinishedMessage(reply_id, len(said)), ended]

    def _on_error(self, event: "_Event") -> list[ServerMessage]:
        error = event["error"]
        if error.get("code") == _NOTHING_TO_CANCEL:
            return [CanceledMessage(Status.OK, "")]
        wrong = error.get("type") == "invalid_request_error"
        status = Status.INVALID_PARAMETER if wrong else Status.INTERNAL
        return [ErrorMessage(status, error["message"])]


_Event = Mapping[str, Any]
_Reader = Callable[[ClientRealtimeConversation, _Event], list[ServerMessage]]
_READERS: Mapping[str, _Reader] = {
    "session.updated": lambda _, __: [UpdatedMessage(Status.OK, "")],
    "input_audio_buffer.committed": lambda _, __: [CompletedMessage(Status.OK, "")],
    "input_audio_buffer.cleared": lambda _, __: [ClearedMessage(Status.OK, "")],
    "input_audio_buffer.speech_started": lambda _, event: [
        SpeechStartedMessage(event["audio_start_ms"])
    ],
    "input_audio_buffer.speech_stopped": lambda _, event: [
        SpeechStoppedMessage(event["audio_end_ms"])
    ],
    "conversation.item.added": ClientRealtimeConversation._on_added,
    "conversation.item.deleted": ClientRealtimeConversation._on_deleted,
    "conversation.item.input_audio_transcription.completed": (
        ClientRealtimeConversation._on_transcript
    ),
    "response.output_text.delta": ClientRealtimeConversation._on_text,
    "response.output_audio_transcript.delta": ClientRealtimeConversation._on_text,
    "response.output_audio.delta": ClientRealtimeConversation._on_audio,
    "response.function_call_arguments.done": ClientRealtimeConversation._on_call,
    "response.done": ClientRealtimeConversation._on_done,
    "error": ClientRealtimeConversation._on_error,
}
"""The handler of each event type."""


@asynccontextmanager
async def connect_realtime(
    url: str, *, key: str, model: str = "default"
) -> AsyncIterator[ClientRealtimeConversation]:
    """Open a conversation over OpenAI's Realtime protocol. It is closed when the
    context ends, within 2 s.

    ``url`` is the server's address (http, https, ws or wss), with or without the path
    ``/v1/realtime``. Raises ConnectionLostError if the server cannot be reached; a
    server that refuses sends an ErrorMessage and closes. Cancelling closes the socket.
    """
    async with open_socket(socket_url(url, PATH, {"model": model}), key) as socket:
        yield ClientRealtimeConversation(socket)
