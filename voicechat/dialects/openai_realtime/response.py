"""One response: its events, in the documented order.

``begin`` (response.created) comes first. Then follow for each output item:
output_item.added, item.added, content_part.added, deltas, and the dones in reverse
order. ``end`` (response.done) comes last and once. Events that open or close something
are sent even if the reply is stopped while they wait; deltas are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from voicechat.dialects.base import Reaction, Tell
from voicechat.dialects.openai_realtime.events import EventWriter, code_of
from voicechat.dialects.openai_realtime.items import (
    RealtimeConversation,
    RealtimeItem,
    call_message,
)
from voicechat.dialects.openai_realtime.mcp_servers import McpCall, McpServers, call_item
from voicechat.dialects.openai_realtime.tools import McpTarget
from voicechat.errors import Status
from voicechat.schema.sources import source_fields
from voicechat.session.notices import Outcome, ReplyAudio, ReplyEnded
from voicechat.session.tool_calls import is_json_object
from voicechat.session.types import Source, ToolCall, Usage

_CUT_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""The protocol's reason for a model that stopped early, by the model's own word."""


@dataclass(slots=True, kw_only=True)
class ResponseForm:
    """The fields of a response besides its output."""

    spoken: bool
    voice: str
    audio_format: Mapping[str, object]
    max_output_tokens: object
    metadata: Mapping[str, str] | None
    conversation_id: str | None
    """None: the response is no part of the conversation."""
    targets: Mapping[str, McpTarget] = field(default_factory=dict)
    """MCP tools by the names that the model calls."""


@dataclass(slots=True)
class _ServerCall:
    """A call of an MCP server's tool, while it comes in pieces. A call that is cut
    short causes no events.
    """

    target: McpTarget
    call_id: str
    arguments: str = ""


@dataclass(slots=True)
class Response:
    """A response in progress. Its methods return the events for the client."""

    id: str
    form: ResponseForm
    writer: EventWriter
    conversation: RealtimeConversation
    servers: McpServers
    reply: int = 0
    anchor: str | None = None
    """The item behind which its output stands; None: behind all others; empty: before
    all others.
    """
    known_anchor: str = ""
    """The nearest item up to ``anchor`` that the session's history holds; empty:
    none.
    """
    text: str = ""
    refs: list[dict[str, object]] = field(default_factory=list)
    """The sources that its text cites, each with the place: the characters of text
    before it.
    """
    sent_ms: int = 0
    """How much of its audio was sent."""
    heard: str | None = None
    """How much of its text was heard when it was stopped; None: it was not stopped."""
    finish_reason: str = ""
    output: list[RealtimeItem] = field(default_factory=list)
    _message: RealtimeItem | None = None
    _calls: dict[int, RealtimeItem] = field(default_factory=dict)
    _server_calls: dict[int, _ServerCall] = field(default_factory=dict)
    _head: str = ""
    """The fields that name the place of the message's audio, as JSON."""
    _sounding: bool = False

    # --- its life ---------------------------------------------------------------------

    def begin(self) -> list[Tell]:
        """Return the events of the beginning."""
        return [
            self._kept("response.created", response=self.written("in_progress")),
            self._kept("rate_limits.updated", rate_limits=[]),
        ]

    def add_text(self, text: str) -> list[Tell]:
        """Add text of the model."""
        opened = self._open_message()
        self.text += text
        name = "output_audio_transcript" if self.form.spoken else "output_text"
        delta = self.writer.write(f"response.{name}.delta", **self._part_place(), delta=text)
        return [*opened, Tell(delta)]

    def add_sources(self, sources: Sequence[Source]) -> list[Tell]:
        """Add sources that the text so far cites. They come with an empty delta, in a
        field that the protocol's clients pass over.
        """
        opened = self._open_message()
        added = [{**source_fields(source), "offset": len(self.text)} for source in sources]
        self.refs += added
        name = "output_audio_transcript" if self.form.spoken else "output_text"
        place = self._part_place()
        delta = self.writer.write(f"response.{name}.delta", **place, delta="", refs=added)
        return [*opened, Tell(delta)]

    def add_audio(self, audio: ReplyAudio) -> list[Tell]:
        """Add the next piece of audio."""
        opened = self._open_message()
        self._sounding = True
        self.sent_ms = audio.end_ms
        assert self._message is not None
        self._message.audio_ms = audio.end_ms
        return [*opened, Tell(self.writer.write_delta(self._head, audio.payload))]

    def add_call(self, piece: ToolCall) -> list[Tell]:
        """Add a piece of a function call."""
        if piece.index in self._server_calls:
            self._server_calls[piece.index].arguments += piece.arguments
            return []
        call = self._calls.get(piece.index)
        told: list[Tell] = []
        if call is None:
            if not piece.name:
                return []  # a call without a name is not a call
            call_id = piece.id or self.writer.new_id("call")
            if piece.name in self.form.targets:
                target = self.form.targets[piece.name]
                self._server_calls[piece.index] = _ServerCall(target, call_id, piece.arguments)
                return []
            content: dict[str, object] = {
                "type": "function_call",
                "name": piece.name,
                "call_id": call_id,
                "arguments": "",
            }
            call = self._calls[piece.index] = self._new_item(content)
            call.call_id = call_id
            told += self._open_item(call)
        if piece.arguments:
            call.content["arguments"] = f"{call.content['arguments']}{piece.arguments}"
            delta = self.writer.write(
                "response.function_call_arguments.delta",
                **self._place(call),
                call_id=call.content["call_id"],
                delta=piece.arguments,
            )
            told.append(Tell(delta))
        return told

    def finish_text(self, reason: str) -> list[Reaction]:
        """The model has finished: close the function calls and make the calls of MCP
        servers. Audio may still follow.
        """
        self.finish_reason = reason
        whole = reason not in _CUT_SHORT
        told: list[Reaction] = []
        if not self.form.spoken:
            told += self._close_message(whole=whole)
        for call in self._calls.values():
            if call.status == "in_progress":
                told += self._close_call(call, whole=whole)
        for made in self._server_calls.values() if whole else ():
            told += self._make_call(made)
        self._server_calls.clear()
        return told

    def finish_audio(self) -> list[Tell]:
        """All audio was sent: close the message."""
        return self._close_message(whole=self.finish_reason not in _CUT_SHORT)

    def end(self, ended: ReplyEnded, reason: str) -> list[Tell]:
        """End the response. ``reason`` says why it was cancelled, if it was."""
        whole = ended.outcome is Outcome.SPOKEN and self.finish_reason not in _CUT_SHORT
        told = self._close_message(whole=whole)
        for call in self._calls.values():
            if call.status == "in_progress":
                told += self._close_call(call, whole=whole)
        status, details = self._status(ended, reason)
        done = self.written(status, details, ended.usage)
        return [*told, self._kept("response.done", response=done)]

    def written(
        self, status: str, details: object = None, usage: Usage | None = None
    ) -> dict[str, object]:
        """Return the response as the protocol writes it."""
        form = self.form
        output = {"format": form.audio_format, "voice": form.voice}
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": [item.written() for item in self.output],
            "conversation_id": form.conversation_id,
            "output_modalities": ["audio" if form.spoken else "text"],
            "max_output_tokens": form.max_output_tokens,
            "audio": {"output": output},
            "usage": None if usage is None else _usage(usage),
            "metadata": form.metadata,
        }

    def _status(self, ended: ReplyEnded, reason: str) -> tuple[str, dict[str, object] | None]:
        match ended.outcome:
            case Outcome.CANCELED:
                return "cancelled", {"type": "cancelled", "reason": reason}
            case Outcome.FAILED:
                status = Status.INTERNAL if ended.fault is None else Status.of(ended.fault)
                message = ended.message or "the model did not answer"
                error = {"type": "server_error", "code": code_of(status), "message": message}
                return "failed", {"type": "failed", "error": error}
            case _ if self.finish_reason in _CUT_SHORT:
                cut = _CUT_SHORT[self.finish_reason]
                return "incomplete", {"type": "incomplete", "reason": cut}
            case _:
                return "completed", None

    # --- its message ------------------------------------------------------------------

    @property
    def message(self) -> RealtimeItem | None:
        """The item that holds its text; None before the first text."""
        return self._message

    def _open_message(self) -> list[Tell]:
        if self._message is not None:
            return []
        part = self._part()
        content: dict[str, object] = {"type": "message", "role": "assistant", "content": []}
        message = self._message = self._new_item(content)
        opened = self._open_item(message)
        place = self._place(message)
        self._head = (
            f'"response_id":"{self.id}","item_id":"{message.id}",'
            f'"output_index":{place["output_index"]},"content_index":0'
        )
        return [
            *opened,
            self._kept("response.content_part.added", **place, content_index=0, part=part),
        ]

    def _close_message(self, *, whole: bool) -> list[Tell]:
        message = self._message
        if message is None or message.status != "in_progress":
            return []
        self._write_text()
        place = self._part_place()
        told = []
        if self.form.spoken:
            if self._sounding:
                told.append(self._kept("response.output_audio.done", **place))
            transcript = {"transcript": self.text}
            told.append(self._kept("response.output_audio_transcript.done", **place, **transcript))
        else:
            told.append(self._kept("response.output_text.done", **place, text=self.text))
        told.append(self._kept("response.content_part.done", **place, part=self._part()))
        return [*told, *self._close_item(message, whole=whole)]

    def _write_text(self) -> None:
        assert self._message is not None
        kind = "output_audio" if self.form.spoken else "output_text"
        name = "transcript" if self.form.spoken else "text"
        cited = {"refs": self.refs} if self.refs else {}
        self._message.content["content"] = [{"type": kind, name: self.text, **cited}]
        self._message.messages = ({"role": "assistant", "content": self.text},)

    def _part(self) -> dict[str, object]:
        cited = {"refs": self.refs} if self.refs else {}
        if self.form.spoken:
            return {"type": "audio", "transcript": self.text, **cited}
        return {"type": "text", "text": self.text, **cited}

    # --- items ------------------------------------------------------------------------

    def _new_item(self, content: dict[str, object], kind: str = "item") -> RealtimeItem:
        item_id = self.writer.new_id(kind)
        return RealtimeItem(item_id, content, status="in_progress", reply=self.reply)

    def _open_item(self, item: RealtimeItem) -> list[Tell]:
        before = self.output[-1].id if self.output else self.anchor
        self.output.append(item)
        added = [
            self._kept(
                "response.output_item.added",
                response_id=self.id,
                output_index=len(self.output) - 1,
                item=item.written(),
            )
        ]
        if self.form.conversation_id is not None:
            self.conversation.insert(item, "root" if before == "" else before)
            added.append(self._item_event("conversation.item.added", item))
        return added

    def _close_call(self, call: RealtimeItem, *, whole: bool) -> list[Tell]:
        content = call.content
        name, call_id = str(content["name"]), str(content["call_id"])
        arguments = str(content["arguments"])
        call.messages = (call_message(call_id, name, arguments),)
        done = self._kept(
            "response.function_call_arguments.done",
            **self._place(call),
            call_id=call_id,
            name=name,
            arguments=arguments,
        )
        return [done, *self._close_item(call, whole=whole)]

    def _make_call(self, call: _ServerCall) -> list[Reaction]:
        """Call an MCP server's tool, or ask the client for its approval."""
        target = call.target
        arguments = call.arguments if is_json_object(call.arguments) else "{}"
        message = call_message(call.call_id, target.name, arguments)
        if target.approval:
            item = self._new_item(
                {
                    "type": "mcp_approval_request",
                    "server_label": target.server_label,
                    "name": target.name,
                    "arguments": arguments,
                },
                "mcpr",
            )
            item.call_id, item.messages = call.call_id, (message,)
            self.servers.await_approval(item, target)
            return [*self._open_item(item), *self._close_item(item, whole=True)]
        item = call_item(self.writer.new_id("mcp"), target, "")
        item.reply, item.call_id, item.messages = self.reply, call.call_id, (message,)
        opened = self._open_item(item)
        item.content["arguments"] = arguments
        place = self._place(item)
        kind = "response.mcp_call_arguments"
        index = self.output.index(item)
        return [
            *opened,
            self._kept(f"{kind}.delta", **place, delta=arguments, obfuscation=""),
            self._kept(f"{kind}.done", **place, arguments=arguments),
            *self.servers.begin_call(McpCall(item, item, index), target),
            self._output_done(item),
        ]

    def _close_item(self, item: RealtimeItem, *, whole: bool) -> list[Tell]:
        item.status = "completed" if whole else "incomplete"
        told = []
        if self.form.conversation_id is not None and item in self.conversation.items:
            told.append(self._item_event("conversation.item.done", item))
        return [*told, self._output_done(item)]

    def _output_done(self, item: RealtimeItem) -> Tell:
        return self._kept(
            "response.output_item.done",
            response_id=self.id,
            output_index=self.output.index(item),
            item=item.written(),
        )

    def _item_event(self, event_type: str, item: RealtimeItem) -> Tell:
        previous = self.conversation.previous_id(item)
        return self._kept(event_type, previous_item_id=previous, item=item.written())

    def _place(self, item: RealtimeItem) -> dict[str, object]:
        return {
            "response_id": self.id,
            "item_id": item.id,
            "output_index": self.output.index(item),
        }

    def _part_place(self) -> dict[str, object]:
        assert self._message is not None
        return {**self._place(self._message), "content_index": 0}

    def _kept(self, event_type: str, **fields: object) -> Tell:
        return Tell(self.writer.write(event_type, **fields), kept=True)


def _usage(usage: Usage) -> dict[str, object]:
    asked, made = usage.prompt_tokens, usage.completion_tokens
    return {
        "total_tokens": asked + made,
        "input_tokens": asked,
        "output_tokens": made,
        "input_token_details": {"text_tokens": asked, "audio_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": made, "audio_tokens": 0},
    }
