"""Tools as a client writes them (functions, which the client carries out, and MCP
servers, whose tools this server calls), and the tools that are offered to the chat
model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Field, Tag, ValidationError

from voicechat.dialects.openai_realtime.audio_settings import SessionPart
from voicechat.dialects.tool_servers import OfferedTool, ToolServerAddress
from voicechat.schema.chat_tools import (
    BOUNDED_TOOLS,
    MAX_NAME_CHARACTERS,
    MAX_TOOLS,
    TOOL_CHOICES,
    ChatCompletionTool,
)
from voicechat.schema.checked import Check, Items, first_failure, one_of
from voicechat.schema.json_text import shown

MOST_SERVERS = 8
"""The most MCP servers of one session."""
MOST_OFFERED = 128
"""The most tools that are offered to the chat model. Further tools of MCP servers are
left out.
"""
MOST_HEADERS = 32
MOST_HEADER_CHARACTERS = 16_384
"""The most characters of all headers of a server together, ``authorization``
included.
"""
_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
FUNCTION, MCP = "(function)", "(mcp)"
"""The names of the kinds of tools in the path of a validation error."""


class FunctionTool(SessionPart):
    """A function that the client carries out."""

    type: Annotated[str, one_of("function", "mcp")] = "function"
    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None

    def chat_tool(self) -> dict[str, object]:
        """Return the function in the form of chat completions."""
        function = self.model_dump(exclude={"type"}, exclude_none=True)
        return {"type": "function", "function": function}

    def written(self) -> dict[str, object]:
        """Return the function as the protocol writes it."""
        return self.model_dump(exclude_none=True)


class _ToolFilter(SessionPart):
    """Selects tools of a server: those that match every field that is set."""

    tool_names: Annotated[list[str], Items(0, MOST_OFFERED, "names")] | None = None
    read_only: bool | None = None

    def matches(self, tool: OfferedTool) -> bool:
        named = self.tool_names is None or tool.name in self.tool_names
        return named and self.read_only in (None, tool.read_only)


class _ApprovalFilter(SessionPart):
    always: _ToolFilter | None = None
    never: _ToolFilter | None = None

    def matches(self, tool: OfferedTool) -> bool:
        """Whether calls of the tool need approval. If neither list mentions the tool,
        they do, unless only ``always`` is set.
        """
        if self.always is not None and self.always.matches(tool):
            return True
        if self.never is not None:
            return not self.never.matches(tool)
        return self.always is None


def _check_label(label: str) -> str:
    if not 1 <= len(label) <= MAX_NAME_CHARACTERS or not _TOKEN.issuperset(label):
        most = MAX_NAME_CHARACTERS
        raise ValueError(f"{shown(label)} is not 1 to {most} letters, digits, _ and -")
    return label


def _check_secret(secret: str) -> str:
    if len(secret) > MOST_HEADER_CHARACTERS or not secret.isascii() or not secret.isprintable():
        raise ValueError(f"must be printable ASCII of at most {MOST_HEADER_CHARACTERS} characters")
    return secret


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    if len(headers) > MOST_HEADERS:
        raise ValueError(f"{len(headers)} headers are more than {MOST_HEADERS}")
    if sum(len(name) + len(value) for name, value in headers.items()) > MOST_HEADER_CHARACTERS:
        raise ValueError(f"they are longer than {MOST_HEADER_CHARACTERS} characters")
    for name, value in headers.items():
        if not name or not _TOKEN.issuperset(name):
            raise ValueError(f"{shown(name)} is no name of a header")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {shown(name)} is not printable ASCII")
    return headers


def _filter_of(allowed: object) -> _ToolFilter:
    named = {"tool_names": allowed} if isinstance(allowed, list) else allowed
    return _ToolFilter.model_validate({} if named is None else named)


def _approvals_of(wanted: object) -> _ApprovalFilter:
    known: Mapping[object, object] = {None: {}, "always": {}, "never": {"never": {}}}
    given = wanted if isinstance(wanted, dict) else known.get(wanted, wanted)
    return _ApprovalFilter.model_validate(given)


def _readable_by(read: Callable[[object], object]) -> Check:
    def check(value: object) -> object:
        try:
            read(value)
        except ValidationError as error:
            raise ValueError(first_failure(error)) from None
        return value

    return Check(check, {})


class McpTool(SessionPart):
    """An MCP server, and which of its tools are offered."""

    type: Annotated[str, one_of("mcp")]
    server_label: Annotated[str, Check(_check_label, {})]
    server_url: str | None = None
    """The server's address; None: the session's server of the same label."""
    server_description: str | None = None
    authorization: Annotated[str, Check(_check_secret, {})] | None = Field(None, repr=False)
    headers: Annotated[dict[str, str], Check(_check_headers, {})] | None = Field(None, repr=False)
    allowed_tools: Annotated[Any, _readable_by(_filter_of)] = None
    require_approval: Annotated[Any, _readable_by(_approvals_of)] = None

    @property
    def address(self) -> ToolServerAddress:
        """The server's address and headers."""
        headers = dict(self.headers or {})
        if self.authorization is not None:
            headers["Authorization"] = f"Bearer {self.authorization}"
        return ToolServerAddress(self.server_url or "", tuple(sorted(headers.items())))

    def allows(self, tool: OfferedTool) -> bool:
        """Whether the tool is offered to the chat model."""
        return _filter_of(self.allowed_tools).matches(tool)

    def needs_approval(self, tool: OfferedTool) -> bool:
        """Whether the client must approve each call of the tool."""
        return _approvals_of(self.require_approval).matches(tool)

    def written(self) -> dict[str, object]:
        """Return the server as the protocol writes it. Secrets are left out."""
        written = self.model_dump(exclude={"authorization", "headers"}, exclude_none=True)
        return {"require_approval": "always", **written}


def _kind_of(tool: object) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return MCP if kind == "mcp" else FUNCTION


AnyTool: TypeAlias = FunctionTool | McpTool


def _check_tools(tools: list[AnyTool]) -> list[AnyTool]:
    functions = [tool for tool in tools if isinstance(tool, FunctionTool)]
    BOUNDED_TOOLS.check([ChatCompletionTool.model_validate(each.chat_tool()) for each in functions])
    labels = [tool.server_label for tool in tools if isinstance(tool, McpTool)]
    if len(labels) > MOST_SERVERS:
        raise ValueError(f"{len(labels)} MCP servers are more than {MOST_SERVERS}")
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ValueError(f"{shown(twice)} is the server_label of two MCP servers")
    return tools


ToolList: TypeAlias = Annotated[
    list[
        Annotated[
            Annotated[FunctionTool, Tag(FUNCTION)] | Annotated[McpTool, Tag(MCP)],
            Discriminator(_kind_of),
        ]
    ],
    Items(0, MAX_TOOLS, "tools"),
    Check(_check_tools, {}),
]


def check_choice(choice: object) -> object:
    """Check a ``tool_choice``. Raises ``ValueError``."""
    if choice in TOOL_CHOICES:
        return choice
    if isinstance(choice, dict):
        kind, name, label = (choice.get(key) for key in ("type", "name", "server_label"))
        if kind == "function" and isinstance(name, str):
            return choice
        if kind == "mcp" and isinstance(label, str) and isinstance(name, str | None):
            return choice
    named = '{"type": "function", "name"} or {"type": "mcp", "server_label", "name"}'
    raise ValueError(f"{shown(choice)} is not one of {', '.join(TOOL_CHOICES)} or {named}")


# --- what the chat model is offered ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class McpTarget:
    """An MCP server's tool, which a name of the model stands for."""

    server_label: str
    server: ToolServerAddress
    name: str
    approval: bool
    """Whether the client must approve each call."""


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """The tools that are offered to the chat model."""

    definitions: tuple[Mapping[str, object], ...] = ()
    """The tools in the form of chat completions."""
    targets: Mapping[str, McpTarget] = field(default_factory=dict)
    """MCP tools by the names that the model calls; all other names are the client's
    functions.
    """

    def without_servers(self) -> "ToolOffer":
        """Return the offer without the tools of MCP servers."""
        taken = self.targets.keys()
        named = ((each["function"], each) for each in self.definitions)
        kept = (each for function, each in named if function["name"] not in taken)  # type: ignore[index]
        return ToolOffer(tuple(kept))

    def chat_choice(self, choice: object) -> object:
        """Return a ``tool_choice`` in the form of chat completions. A choice that names
        a server but no tool becomes "some tool must be called".
        """
        if not isinstance(choice, dict):
            return choice
        name = choice.get("name")
        if choice["type"] == "mcp":
            wanted = (choice["server_label"], name)
            calls = self.targets.items()
            found = (call for call, each in calls if (each.server_label, each.name) == wanted)
            name = next(found, None)
        if name is None:
            return "required" if self.definitions else "auto"
        return {"type": "function", "function": {"name": name}}


def offer_of(
    tools: Iterable[AnyTool],
    listed: Callable[[McpTool], tuple[ToolServerAddress, Iterable[OfferedTool]]],
) -> ToolOffer:
    """Return what is offered to the model. ``listed`` returns where a server is, and
    its known tools.

    A tool of an MCP server whose name is taken is called ``LABEL__NAME``.
    """
    tools = list(tools)
    servers = [tool for tool in tools if isinstance(tool, McpTool)]
    definitions = [tool.chat_tool() for tool in tools if isinstance(tool, FunctionTool)]
    taken = {tool.name for tool in tools if isinstance(tool, FunctionTool)}
    targets: dict[str, McpTarget] = {}
    for server in servers:
        address, found = listed(server)
        for tool in filter(server.allows, found):
            name = tool.name if tool.name not in taken else f"{server.server_label}__{tool.name}"
            if name in taken or len(name) > MAX_NAME_CHARACTERS or len(taken) >= MOST_OFFERED:
                continue
            taken.add(name)
            approval = server.needs_approval(tool)
            targets[name] = McpTarget(server.server_label, address, tool.name, approval)
            function = {"description": tool.description, "parameters": tool.parameters}
            definitions.append({"type": "function", "function": {"name": name, **function}})
    return ToolOffer(tuple(definitions), targets)
