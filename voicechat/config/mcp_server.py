"""Tools of an MCP server (Model Context Protocol), for the chat models of all
conversations.

One connection serves all sessions. It is opened when the server starts and opened anew
when it is lost; until then the tools are not offered, and a call that was made fails as
any other tool's. A server that a client has named is connected to once, for that
client's session.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from voicechat.errors import ConfigError, ToolError
from voicechat.runtime.error_location import location_of
from voicechat.runtime.tool_function import NAME, ServerTool
from voicechat.session.filler import Filler

if TYPE_CHECKING:
    import httpx2
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
MAX_TOOL_BYTES = 16 * 1024
"""Of one tool's name, description and schema, as JSON. Larger ones are passed over."""
MOST_DEADLINES = 6
"""A call that reports progress gets its deadline anew each time, but takes no longer
than so many of them.
"""
CLOSE_S = 5.0
"""How long the end of a connection may take: a child process has 2 s to end itself."""


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
    http_client: "Callable[[], httpx2.AsyncClient] | None" = None
    """Makes the HTTP client of each connection; None: one with ``headers``."""
    retries: bool = True
    """False: a connection that fails or is lost is not opened anew."""
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
        self._decided = asyncio.Event()
        """Connected, or given up."""
        self._lost = asyncio.Event()

    @property
    def lost(self) -> bool:
        """Whether it is not connected, and will not be again."""
        return self._keeper is None or self._keeper.done()

    async def start(self) -> None:
        """Connect. A server that cannot be reached within ``CONNECT_S`` is tried again
        in the background, unless ``retries`` says otherwise.
        """
        self._keeper = asyncio.get_running_loop().create_task(
            self._keep_connected(), name=f"mcp-{self.name}"
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._decided.wait()

    async def aclose(self) -> None:
        """Close the connection, or end the child process, within ``CLOSE_S``."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper}, timeout=CLOSE_S)

    async def _keep_connected(self) -> None:
        wait_s = FIRST_RETRY_S
        while True:
            try:
                async with self._client() as client:
                    async with asyncio.timeout(CONNECT_S):
                        self.tools = await self._read_tools(client)
                    self._decided.set()
                    wait_s = FIRST_RETRY_S
                    self._lost.clear()
                    await self._lost.wait()
            except Exception as error:  # noqa: BLE001 - another program's failure must not end the server
                logger.warning(
                    "tools.%s: the MCP server cannot be reached: %s at %s; %s",
                    self.name,
                    type(error).__name__,
                    location_of(error),
                    f"next attempt in {wait_s:.0f} s" if self._settings.retries else "given up",
                )
            finally:
                self.tools = {}
            if not self._settings.retries:
                self._decided.set()
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LAST_RETRY_S)

    async def _read_tools(self, client: "Client") -> dict[str, ServerTool]:
        found: dict[str, ServerTool] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                wanted = self._settings.tools is None or tool.name in self._settings.tools
                small = len(tool.model_dump_json().encode()) <= MAX_TOOL_BYTES
                if wanted and small and NAME.fullmatch(tool.name) and len(found) < MAX_TOOLS:
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
            loop = asyncio.get_running_loop()
            deadline = asyncio.timeout(settings.deadline_s)
            running = True

            async def go_on(progress: float, total: float | None, message: str | None) -> None:
                if running and not deadline.expired():
                    deadline.reschedule(loop.time() + settings.deadline_s)

            try:
                async with deadline:
                    answer = await client.call_tool(tool.name, arguments, progress_callback=go_on)
            except TimeoutError:
                raise  # of this call alone: the connection is fine
            except refusal as error:
                if error.code not in _REFUSALS:
                    self._lost.set()
                raise ToolError(str(error)) from None
            except Exception:
                # The connection is lost: the next call has a new one.
                self._lost.set()
                raise
            finally:
                running = False
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
            deadline_s=settings.deadline_s * MOST_DEADLINES,
            filler=settings.filler,
            filler_after_ms=settings.filler_after_ms,
            read_only=bool(tool.annotations and tool.annotations.read_only_hint),
        )


def import_client() -> None:
    """Load the package ``mcp``, which takes a second or two; it may be done in a
    thread. Raises ``ConfigError`` when it is not installed.
    """
    try:
        for name in ("httpx2", "mcp", "mcp.client.streamable_http", "mcp.client.stdio"):
            import_module(name)
    except ImportError:
        message = "MCP servers need the extra mcp: pip install 'voicechat[mcp]'"
        raise ConfigError(message) from None
    # Its messages quote what servers answer and how their sessions are called.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)


def _client_factory(settings: McpSettings) -> "Callable[[], Client]":
    """Return what makes a client for each attempt to connect."""
    import_client()
    import httpx2
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters
    from mcp.client.streamable_http import streamable_http_client

    if settings.url:
        headers = dict(settings.headers or {})
        http_client = settings.http_client or (lambda: httpx2.AsyncClient(headers=headers))

        @asynccontextmanager
        async def connect() -> AsyncIterator[Any]:
            async with (
                http_client() as client,
                streamable_http_client(settings.url, http_client=client) as streams,
            ):
                yield streams

        return lambda: Client(connect())
    program, *arguments = settings.command
    return lambda: Client(StdioServerParameters(command=program, args=arguments))


def _text_of(answer: Any) -> str:
    """What a tool answered, as a text. Pictures and sounds are only named."""
    parts = [
        part.text if part.type == "text" else f"({part.type})" for part in answer.content or ()
    ]
    return "\n".join(parts)
