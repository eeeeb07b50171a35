"""Tools of an MCP server (Model Context Protocol), for the chat models of all
conversations.

One connection serves all sessions. It is opened when the server starts and opened anew
when it is lost; until then the tools are not offered, and a call that was made fails as
any other tool's.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voicechat.errors import ConfigError, ToolError
from voicechat.runtime.error_location import location_of
from voicechat.runtime.tool_function import NAME, ServerTool
from voicechat.session.filler import Filler

if TYPE_CHECKING:
    from mcp import Client

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
"""How long a connection may take to be opened, its list of tools included."""
FIRST_RETRY_S = 1.0
"""Before the second attempt to connect; each further one waits twice as long."""
LAST_RETRY_S = 60.0
MAX_TOOLS = 128
"""Tools of one server. Further ones are passed over."""
_REFUSALS = (-32601, -32602, -32603)
"""JSON-RPC's codes for an unknown method, wrong parameters and a server's failure: the
connection is fine.
"""
MAX_PAGES = 20
"""Pages of its list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpSettings:
    """How an MCP server is reached, and which of its tools are offered."""

    url: str = ""
    """Of its streamable HTTP; empty: it is a child process."""
    command: Sequence[str] = ()
    """What starts it as a child process that speaks on its standard input and
    output.
    """
    headers: Mapping[str, str] | None = None
    """For HTTP, such as ``Authorization``."""
    tools: Sequence[str] | None = None
    """Names of the tools that are offered; None: all."""
    deadline_s: float = 10.0
    filler: Filler = field(default_factory=Filler)
    filler_after_ms: int = 1_000


class McpServer:
    """One server and the tools that it has now."""

    def __init__(self, name: str, settings: McpSettings) -> None:
        """``name`` is the configured one. Raises ``ConfigError`` without the extra
        ``mcp``.
        """
        self.name = name
        self.tools: dict[str, ServerTool] = {}
        """By name; empty while it is not connected."""
        self._settings = settings
        self._client = _client_factory(settings)
        self._keeper: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()

    async def start(self) -> None:
        """Connect. A server that cannot be reached within ``CONNECT_S`` is tried again
        in the background.
        """
        self._keeper = asyncio.get_running_loop().create_task(
            self._keep_connected(), name=f"mcp-{self.name}"
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._connected.wait()

    async def aclose(self) -> None:
        """Close the connection, or end the child process."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    async def _keep_connected(self) -> None:
        wait_s = FIRST_RETRY_S
        while True:
            try:
                async with self._client() as client:
                    async with asyncio.timeout(CONNECT_S):
                        self.tools = await self._read_tools(client)
                    self._connected.set()
                    wait_s = FIRST_RETRY_S
                    self._lost.clear()
                    await self._lost.wait()
            except Exception as error:  # noqa: BLE001 - another program's failure must not end the server
                logger.warning(
                    "tools.%s: the MCP server cannot be reached: %s at %s; next attempt in %.0f s",
                    self.name,
                    type(error).__name__,
                    location_of(error),
                    wait_s,
                )
            finally:
                self.tools = {}
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LAST_RETRY_S)

    async def _read_tools(self, client: "Client") -> dict[str, ServerTool]:
        found: dict[str, ServerTool] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                wanted = self._settings.tools is None or tool.name in self._settings.tools
                if wanted and NAME.fullmatch(tool.name) and len(found) < MAX_TOOLS:
                    found[tool.name] = self._server_tool(client, tool)
            cursor = page.next_cursor
            if not cursor:
                break
        for name in set(self._settings.tools or ()) - found.keys():
            logger.warning("tools.%s: the MCP server has no tool %r", self.name, name)
        return found

    def _server_tool(self, client: "Client", tool: Any) -> ServerTool:
        from mcp import MCPError as refusal  # noqa: N813 - used in a closure only

        settings = self._settings

        async def call(**arguments: object) -> str:
            try:
                answer = await client.call_tool(tool.name, arguments)
            except refusal as error:
                if error.code not in _REFUSALS:
                    self._lost.set()
                raise ToolError(str(error)) from None
            except Exception:
                # The connection is lost: the next call has a new one.
                self._lost.set()
                raise
            text = _text_of(answer)
            if answer.is_error:
                raise ToolError(text or "The tool failed.")
            return text

        return ServerTool(
            name=tool.name,
            function=call,
            description=tool.description or tool.name,
            parameters=tool.input_schema,
            arguments=None,
            deadline_s=settings.deadline_s,
            filler=settings.filler,
            filler_after_ms=settings.filler_after_ms,
        )


def _client_factory(settings: McpSettings) -> "Callable[[], Client]":
    """Return what makes a client for each attempt to connect."""
    try:
        import httpx2
        from mcp import Client
        from mcp.client.stdio import StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        message = "MCP servers need the extra mcp: pip install 'voicechat[mcp]'"
        raise ConfigError(message) from None
    if settings.url:
        headers = dict(settings.headers or {})
        return lambda: Client(
            streamable_http_client(settings.url, http_client=httpx2.AsyncClient(headers=headers))
        )
    program, *arguments = settings.command
    return lambda: Client(StdioServerParameters(command=program, args=arguments))


def _text_of(answer: Any) -> str:
    """What a tool answered, as a text. Pictures and sounds are only named."""
    parts = [
        part.text if part.type == "text" else f"({part.type})" for part in answer.content or ()
    ]
    return "\n".join(parts)
