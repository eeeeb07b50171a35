"""The items of a conversation: how a client writes them, how a chat model reads them,
and their order.

Items are the client's view of what the session calls its history. An item need not have
exactly one message there: a turn in which nothing was understood has none, and a
reply's text shares one with the calls that it makes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pybase64

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import shown
from voicechat.session.tool_calls import is_json_object
from voicechat.session.types import Message

Content = dict[str, object]

MOST_ITEMS = 1_000
"""The most items of one conversation. Older ones are dropped, as in the session's
history.
"""
MOST_ITEM_BYTES = 8 * 1024 * 1024
"""The most bytes of all items that a client made: a model's server reads them with each
turn, and pictures are large.
"""
MOST_ID_CHARACTERS = 64
"""The longest id that the client may choose."""


@dataclass(slots=True, eq=False)
class RealtimeItem:
    """One item of a conversation or of a response."""

    id: str
    content: Content
    """All fields but its id and status, as the protocol writes them."""
    status: str = "completed"
    messages: tuple[Message, ...] = ()
    """The messages in the form that a chat model reads."""
    history: tuple[str, ...] = ()
    """The ids of its messages in the session's history."""
    call_id: str = ""
    """The chat model's id of the call that the item makes; empty: it makes none."""
    answer: str = ""
    """The id, in the session's history, of an MCP server's answer to the item's call;
    empty: there is none.
    """
    reply: int = 0
    """The reply that it is part of; 0: of none."""
    audio: bytes = b""
    """Speech of the user that is not recognised yet."""
    audio_ms: int | None = None
    """How much of its audio was sent; None: it has none."""
    size_bytes: int = 0
    """The size of an item that the client made."""

    def written(self) -> Content:
        """Return the item as the protocol writes it. Items of MCP have no status."""
        if str(self.content["type"]).startswith("mcp_"):
            return {"id": self.id, **self.content}
        return {"id": self.id, "object": "realtime.item", "status": self.status, **self.content}

    @property
    def is_call(self) -> bool:
        """Whether the item makes a call."""
        return bool(self.call_id)

    @property
    def known(self) -> tuple[str, ...]:
        """All ids of the item in the session's history, in their order there."""
        return (*self.history, self.answer) if self.answer else self.history


def user_audio(item_id: str, history_id: str = "") -> RealtimeItem:
    """Return the item of a turn that the user spoke, whose words are not known yet."""
    part = {"type": "input_audio", "transcript": None}
    content: Content = {"type": "message", "role": "user", "content": [part]}
    return RealtimeItem(item_id, content, history=(history_id,) if history_id else ())


def hold_heard(item: RealtimeItem, heard: str) -> None:
    """Reduce the item to ``heard``, the part of a reply's text that was heard."""
    parts = item.content["content"]
    assert isinstance(parts, list)
    part = parts[0]
    name = "transcript" if part["type"] == "output_audio" else "text"
    left: dict[str, object] = {**part, name: heard}
    if "refs" in part:
        left["refs"] = [ref for ref in part["refs"] if ref["offset"] <= len(heard)]
    item.content["content"] = [left]
    item.messages = ({"role": "assistant", "content": heard},)


@dataclass(slots=True)
class RealtimeConversation:
    """The items in their order, which is the order that the chat model reads."""

    items: list[RealtimeItem] = field(default_factory=list)

    def find(self, item_id: object) -> RealtimeItem | None:
        """Return the item of that id; None: there is none."""
        return next((item for item in self.items if item.id == item_id), None)

    def previous_id(self, item: RealtimeItem) -> str | None:
        """Return the id of the item before; None: the item is the first."""
        place = self.items.index(item)
        return self.items[place - 1].id if place else None

    @property
    def last_id(self) -> str | None:
        """The id of the last item; None: there is none."""
        return self.items[-1].id if self.items else None

    def insert(self, item: RealtimeItem, after: str | None) -> None:
        """Insert an item behind the item ``after``; ``root``: before all others; None,
        or an unknown id: behind all others.
        """
        if after == "root":
            self.items.insert(0, item)
            return
        behind = self.find(after)
        place = len(self.items) if behind is None else self.items.index(behind) + 1
        if behind is not None and behind.reply != item.reply:
            # A reply's text and its calls are one message for the model.
            while place < len(self.items) and self.items[place].reply == behind.reply != 0:
                place += 1
        self.items.insert(place, item)
        if len(self.items) > MOST_ITEMS:
            del self.items[0]

    def known_before(self, item: RealtimeItem | None) -> str:
        """Return the id of the nearest item before ``item`` that the session's history
        holds; ``item`` None: of the last such item. Empty: there is none.
        """
        place = len(self.items) if item is None else self.items.index(item)
        known = (each.id for each in reversed(self.items[:place]) if each.known)
        return next(known, "")

    def known_behind(self, item: RealtimeItem) -> bool:
        """Whether the session's history holds any item behind ``item``."""
        return any(later.known for later in self.items[self.items.index(item) + 1 :])

    def history_before(self, item: RealtimeItem) -> str:
        """Return the last history id of the nearest item before ``item`` that has one;
        empty: there is none.
        """
        place = self.items.index(item)
        earlier = (before.known for before in reversed(self.items[:place]) if before.known)
        return next(earlier, ("",))[-1]

    @property
    def size_bytes(self) -> int:
        """The size of all items that the client made."""
        return sum(item.size_bytes for item in self.items)


# --- what a client writes -------------------------------------------------------------


def read_item(value: object, path: str, new_id: Callable[[], str]) -> RealtimeItem:
    """Read an item that a client made. Raises ``RemoteProtocolError``, whose message
    begins with the path of the offending field.
    """
    item = _object(value, path)
    kind = item.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise _wrong(f"{path}.type", kind, f"one of {', '.join(_READERS)}")
    item_id = item.get("id")
    if item_id is None:
        item_id = new_id()
    if not isinstance(item_id, str) or not 1 <= len(item_id) <= MOST_ID_CHARACTERS:
        raise _wrong(f"{path}.id", item_id, f"a text of 1 to {MOST_ID_CHARACTERS} characters")
    content, messages = reader(item, path)
    audio = _speech_of(item, path)
    return RealtimeItem(
        item_id,
        content,
        messages=() if audio else messages,
        call_id=_text(item, "call_id", path) if kind == "function_call" else "",
        audio=audio,
        size_bytes=len(str(content)),
    )


def _speech_of(item: Mapping[str, object], path: str) -> bytes:
    """Return the audio of a user's message that has no transcript; empty: there is
    none.
    """
    values = item.get("content")
    parts = values if isinstance(values, list) and item.get("role") == "user" else []
    unread = [part for part in parts if part.get("type") == "input_audio" and _is_unread(part)]
    if not unread:
        return b""
    if len(parts) > 1:
        message = f"{path}.content: audio without a transcript must be the only part"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    try:
        return pybase64.b64decode(str(unread[0]["audio"]), validate=True)
    except ValueError:
        message = f"{path}.content[0].audio: is not base64"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message) from None


def _is_unread(part: Mapping[str, object]) -> bool:
    return not isinstance(part.get("transcript"), str) and isinstance(part.get("audio"), str)


def _read_message(item: Mapping[str, object], path: str) -> tuple[Content, tuple[Message, ...]]:
    role = item.get("role")
    if role not in _PART_KINDS:
        raise _wrong(f"{path}.role", role, f"one of {', '.join(_PART_KINDS)}")
    values = item.get("content")
    if not isinstance(values, list) or not values:
        raise _wrong(f"{path}.content", values, "an array of parts")
    kinds = _PART_KINDS[str(role)]
    parts: list[Content] = []
    pieces: list[Content] = []
    for place, value in enumerate(values):
        at = f"{path}.content[{place}]"
        part = _object(value, at)
        kind = part.get("type")
        if kind not in kinds:
            raise _wrong(f"{at}.type", kind, f"one of {', '.join(kinds)}")
        written, piece = _PART_READERS[str(kind)](part, at)
        parts.append(written)
        pieces.append(piece)
    content: Content = {"type": "message", "role": role, "content": parts}
    return content, ({"role": role, "content": _joined(pieces)},)


def _joined(pieces: Iterable[Content]) -> object:
    """Return content parts in the form that a chat model reads: one text if all are
    texts.
    """
    pieces = list(pieces)
    if all(piece["type"] == "text" for piece in pieces):
        return "\n".join(str(piece["text"]) for piece in pieces)
    return pieces


def _read_text(part: Mapping[str, object], path: str) -> tuple[Content, Content]:
    text = _text(part, "text", path)
    return {"type": part["type"], "text": text}, {"type": "text", "text": text}


def _read_audio(part: Mapping[str, object], path: str) -> tuple[Content, Content]:
    """Read a part with audio: it needs a transcript, unless its audio is to be
    recognised.
    """
    transcript = part.get("transcript")
    if part["type"] == "input_audio" and _is_unread(part):
        return {"type": "input_audio", "transcript": None}, {"type": "text", "text": ""}
    if not isinstance(transcript, str):
        raise _wrong(f"{path}.transcript", transcript, "a text")
    written: Content = {"type": part["type"], "transcript": transcript}
    return written, {"type": "text", "text": transcript}


def _read_image(part: Mapping[str, object], path: str) -> tuple[Content, Content]:
    url = _text(part, "image_url", path)
    if not url.startswith(("data:image/", "https://", "http://")):
        raise _wrong(f"{path}.image_url", url, "a data:image/ URL, or an http address")
    detail = part.get("detail") or "auto"
    if detail not in ("auto", "low", "high"):
        raise _wrong(f"{path}.detail", detail, "one of auto, low, high")
    written: Content = {"type": "input_image", "image_url": url, "detail": detail}
    return written, {"type": "image_url", "image_url": {"url": url, "detail": detail}}


_PartReader = Callable[[Mapping[str, object], str], tuple[Content, Content]]
_PART_READERS: Mapping[str, _PartReader] = {
    "input_text": _read_text,
    "output_text": _read_text,
    "input_audio": _read_audio,
    "output_audio": _read_audio,
    "input_image": _read_image,
}
_PART_KINDS: Mapping[str, tuple[str, ...]] = {
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "output_audio"),
    "system": ("input_text",),
}


def _read_call(item: Mapping[str, object], path: str) -> tuple[Content, tuple[Message, ...]]:
    name, arguments = _text(item, "name", path), _text(item, "arguments", path)
    call_id = _text(item, "call_id", path)
    content: Content = {
        "type": "function_call",
        "name": name,
        "call_id": call_id,
        "arguments": arguments,
    }
    return content, (call_message(call_id, name, arguments),)


def _read_output(item: Mapping[str, object], path: str) -> tuple[Content, tuple[Message, ...]]:
    call_id, output = _text(item, "call_id", path), _text(item, "output", path)
    content: Content = {"type": "function_call_output", "call_id": call_id, "output": output}
    return content, (tool_message(call_id, output),)


def _read_approval(item: Mapping[str, object], path: str) -> tuple[Content, tuple[Message, ...]]:
    approve, reason = item.get("approve"), item.get("reason")
    if not isinstance(approve, bool):
        raise _wrong(f"{path}.approve", approve, "true or false")
    if not isinstance(reason, str | None):
        raise _wrong(f"{path}.reason", reason, "a text")
    content: Content = {
        "type": "mcp_approval_response",
        "approval_request_id": _text(item, "approval_request_id", path),
        "approve": approve,
        "reason": reason,
    }
    return content, ()


_ItemReader = Callable[[Mapping[str, object], str], tuple[Content, tuple[Message, ...]]]
_READERS: Mapping[str, _ItemReader] = {
    "message": _read_message,
    "function_call": _read_call,
    "function_call_output": _read_output,
    "mcp_approval_response": _read_approval,
}


def call_message(call_id: str, name: str, arguments: str) -> Message:
    """Return a call in the form that a chat model reads."""
    sane = arguments if is_json_object(arguments) else "{}"
    function = {"name": name, "arguments": sane}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def tool_message(call_id: str, output: str) -> Message:
    """Return a call's result in the form that a chat model reads."""
    return {"role": "tool", "tool_call_id": call_id, "content": output}


def _object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _wrong(path, value, "an object")
    return value


def _text(value: Mapping[str, object], name: str, path: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise _wrong(f"{path}.{name}", text, "a text")
    return text


def _wrong(path: str, value: object, wanted: str) -> RemoteProtocolError:
    if value is None:
        message = f"{path}: must be present: {wanted}"
    else:
        message = f"{path}: {shown(value)} is not {wanted}"
    return RemoteProtocolError(Status.INVALID_PARAMETER, message)
