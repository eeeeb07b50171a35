"""A device's functions as tools of the chat model: MCP over the device's connection.

A value machine like a dialect: ``begin`` asks the device for its tools, ``receive``
takes its answers, ``call`` calls a tool. Every call gets an answer: the device's, or
after a time-out one that is made here.

Source: xiaozhi-esp32, ``docs/mcp-protocol.md`` and ``main/mcp_server.cc``.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import voicechat
from voicechat.dialects.base import Reaction, Tell
from voicechat.dialects.xiaozhi.codec import MessageWriter
from voicechat.session.commands import AnswerTool

PROTOCOL = "2024-11-05"
LISTED_MS = 10_000
"""The longest wait for an answer to ``initialize`` or ``tools/list``; after it the
tools that have come so far are used.
"""
CALLED_MS = 25_000
"""The longest wait for an answer to ``tools/call``, which may include the description
of a photo. Less than the session waits for the client's tools
(``limits.tool_answer_ms``).
"""
MOST_TOOLS = 64
MOST_PAGES = 16
"""The most pages of ``tools/list``: the firmware makes pages of 8,000 bytes."""
MAX_TOOL_CHARACTERS = 8_000
"""The longest description of one tool, as JSON; longer ones are skipped."""
MAX_ANSWER_CHARACTERS = 16_000
"""The longest result; the rest is cut off."""

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]+")
_NAME_CHARACTERS = 64
"""The form that OpenAI requires for a function's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """Where a device sends its photos."""

    url: str = ""
    token: str = ""


@dataclass(slots=True)
class _Call:
    """A call that the device has not answered."""

    call_id: str
    due_ms: int


class DeviceTools:
    """The tools of one device. Times are the connection's milliseconds."""

    def __init__(self, writer: MessageWriter, vision: Vision) -> None:
        self._writer = writer
        self._vision = vision
        self._last_id = 0
        self._listing: tuple[int, int] | None = None
        """The request that fetches the tools, and when its answer is due."""
        self._initialised = False
        self._pages = 0
        self._functions: dict[str, Mapping[str, object]] = {}
        """The tools in the form that the model reads, by the name that it uses."""
        self._names: dict[str, str] = {}
        """The device's tool names by the model's."""
        self._calls: dict[int, _Call] = {}
        """The open calls, by the number of their request."""
        self.complete = False
        """Whether the list of tools is complete, or its time-out has passed."""

    @property
    def functions(self) -> list[Mapping[str, object]]:
        """The tools in the form of chat completions."""
        return list(self._functions.values())

    # --- which tools there are --------------------------------------------------------

    def begin(self, now_ms: int) -> Iterator[Tell]:
        """Ask the device who it is, then what it can do."""
        params = {
            "protocolVersion": PROTOCOL,
            "capabilities": {"vision": {"url": self._vision.url, "token": self._vision.token}},
            "clientInfo": {"name": "voicechat", "version": voicechat.__version__},
        }
        yield from self._ask_for_tools("initialize", params, now_ms)

    def receive(self, payload: object, now_ms: int) -> Iterator[Reaction]:
        """Take an answer of the device. An answer to no open request is dropped: it is
        late, or unsolicited.
        """
        if not isinstance(payload, Mapping):
            return
        number = payload.get("id")
        if not isinstance(number, int):
            return
        if self._listing is not None and number == self._listing[0]:
            self._listing = None
            yield from self._listed(payload, now_ms)
        elif (call := self._calls.pop(number, None)) is not None:
            yield AnswerTool(call.call_id, _answer_of(payload))

    def _listed(self, payload: Mapping[str, object], now_ms: int) -> Iterator[Tell]:
        result = payload.get("result")
        if not isinstance(result, Mapping):
            self.complete = True
            return
        if not self._initialised:
            self._initialised = True
            notice = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            yield Tell(self._writer.mcp(notice))
            yield from self._ask_for_tools("tools/list", {"cursor": ""}, now_ms)
            return
        self._pages += 1
        tools = result.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            self._add(tool)
        cursor = result.get("nextCursor")
        if isinstance(cursor, str) and cursor and self._pages < MOST_PAGES:
            yield from self._ask_for_tools("tools/list", {"cursor": cursor}, now_ms)
        else:
            self.complete = True

    def _add(self, tool: object) -> None:
        if not isinstance(tool, Mapping) or len(self._functions) >= MOST_TOOLS:
            return
        name, schema = tool.get("name"), tool.get("inputSchema")
        if not isinstance(name, str) or not name:
            return
        about = tool.get("description")
        function: Mapping[str, object] = {
            "name": self._model_name(name),
            "description": about if isinstance(about, str) else "",
            "parameters": schema if isinstance(schema, Mapping) else {"type": "object"},
        }
        if len(json.dumps(function)) > MAX_TOOL_CHARACTERS:
            return
        own = str(function["name"])
        self._names[own] = name
        self._functions[own] = {"type": "function", "function": function}

    def _model_name(self, name: str) -> str:
        """Return a name that a model's server accepts: ``self.light.on`` becomes
        ``self_light_on``.
        """
        plain = (_NOT_IN_NAMES.sub("_", name).strip("_") or "tool")[:_NAME_CHARACTERS]
        own, number = plain, 1
        while self._names.get(own, name) != name:
            number += 1
            own = f"{plain[: _NAME_CHARACTERS - 3]}_{number}"
        return own

    # --- what they do -----------------------------------------------------------------

    def call(self, call_id: str, name: str, arguments: str, now_ms: int) -> Iterator[Reaction]:
        """Call a tool. ``arguments`` is what the model wrote."""
        try:
            values = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            values = None
        if name not in self._names:
            yield AnswerTool(call_id, f"Error: the device has no tool {name!r}.")
        elif not isinstance(values, dict):
            yield AnswerTool(call_id, "Error: the arguments are not a JSON object.")
        else:
            params = {"name": self._names[name], "arguments": values}
            yield self._request("tools/call", params)
            self._calls[self._last_id] = _Call(call_id, now_ms + CALLED_MS)

    def forget_calls(self) -> None:
        """The reply was stopped: drop the answers to its calls."""
        self._calls.clear()

    def deadline_ms(self) -> int | None:
        """Return when to call ``wake``; None: not at all."""
        due = [call.due_ms for call in self._calls.values()]
        if self._listing is not None:
            due.append(self._listing[1])
        return min(due, default=None)

    def wake(self, now_ms: int) -> Iterator[Reaction]:
        """Answer the calls that the device has not answered in time."""
        if self._listing is not None and now_ms >= self._listing[1]:
            self._listing = None
            self.complete = True
        late = [number for number, call in self._calls.items() if now_ms >= call.due_ms]
        for number in late:
            message = f"Error: the device did not answer within {CALLED_MS // 1000} s."
            yield AnswerTool(self._calls.pop(number).call_id, message)

    def _ask_for_tools(
        self, method: str, params: Mapping[str, object], now_ms: int
    ) -> Iterator[Tell]:
        yield self._request(method, params)
        self._listing = (self._last_id, now_ms + LISTED_MS)

    def _request(self, method: str, params: Mapping[str, object]) -> Tell:
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        return Tell(self._writer.mcp(request))


def _answer_of(payload: Mapping[str, object]) -> str:
    """Return a device's answer in the form that the model reads. An error is an answer,
    too.
    """
    error, result = payload.get("error"), payload.get("result")
    if isinstance(error, Mapping):
        return f"Error: {error.get('message', 'the device refused')}"[:MAX_ANSWER_CHARACTERS]
    if not isinstance(result, Mapping):
        return "Error: the device gave no result."
    content = result.get("content")
    texts = [_text_of(part) for part in content] if isinstance(content, list) else []
    text = "\n".join(filter(None, texts)) or "Done."
    if result.get("isError") is True:
        text = f"Error: {text}"
    return text[:MAX_ANSWER_CHARACTERS]


def _text_of(part: object) -> str:
    if not isinstance(part, Mapping):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else f"[{part.get('type', 'content')}]"


class ToolCalls:
    """The calls of one answer of the model, collected from the pieces in which it
    comes.
    """

    def __init__(self) -> None:
        self._calls: dict[int, list[str]] = {}

    def add(self, index: int, call_id: str | None, name: str | None, arguments: str) -> None:
        """Add a piece of call number ``index``."""
        call = self._calls.setdefault(index, ["", "", ""])
        call[0] = call[0] or (call_id or "")
        call[1] = call[1] or (name or "")
        call[2] += arguments

    def take(self) -> Iterable[tuple[str, str, str]]:
        """Return the whole calls (id, name and arguments) and start over."""
        calls, self._calls = self._calls, {}
        return [(call_id, name, arguments) for call_id, name, arguments in calls.values()]
