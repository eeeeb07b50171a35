"""The tool servers that a client has named for one conversation. They are connected
when the dialect requests their tools and closed with the session.

Every request of the dialect is answered exactly once, in bounded time, whatever a
server does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from voicechat.dialects.tool_servers import (
    CallTool,
    ForgetToolServer,
    ListTools,
    OfferedTool,
    ToolAnswered,
    ToolNews,
    ToolRequest,
    ToolServerAddress,
    ToolsListed,
)
from voicechat.errors import ToolError
from voicechat.runtime.toolbox import NOT_THERE, Toolbox, ToolServer
from voicechat.session.types import ToolAnswer, ToolCall, ToolOutcome

MOST_CONNECTIONS = 8
"""Most tool servers of one conversation."""
MOST_CALLS = 16
"""Most concurrent calls of one conversation."""
NOT_REACHED = "The server of the tool cannot be reached."
UNREACHABLE = "the server cannot be reached in time, or does not speak the protocol"


class OpenToolServer(Protocol):
    """Opens the tool server at an address, without connecting to it."""

    async def __call__(self, address: ToolServerAddress) -> ToolServer:
        """Raises ``ToolError``, whose text is for the client, if connecting to the
        address is not allowed.
        """


async def no_tool_servers(address: ToolServerAddress) -> ToolServer:
    """Refuse every address."""
    raise ToolError("this server connects to no tool servers of its clients")


class SessionTools:
    """The tool servers of one conversation."""

    def __init__(
        self,
        open_server: OpenToolServer,
        spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"],
        answer: Callable[[ToolNews], None],
    ) -> None:
        """``spawn`` starts tasks that end with the session; ``answer`` is called with
        each answer.
        """
        self._open = open_server
        self._spawn = spawn
        self._answer = answer
        self._servers: dict[ToolServerAddress, asyncio.Task[ToolServer]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._calls = 0

    def perform(self, request: ToolRequest) -> None:
        """Start a request of the dialect. Never waits."""
        match request:
            case ListTools():
                _ = self._spawn(self._list(request), "list-tools")
            case CallTool():
                _ = self._spawn(self._call(request), "call-tool")
            case ForgetToolServer():
                self._forget(request.server)

    async def aclose(self) -> None:
        """Close all connections, in bounded time."""
        for address in list(self._servers):
            self._forget(address)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _list(self, request: ListTools) -> None:
        try:
            server = await self._connected(request.server)
        except ToolError as error:
            self._answer(ToolsListed(request.cause, failure=str(error)))
            return
        if server.lost:
            self._answer(ToolsListed(request.cause, failure=UNREACHABLE))
            return
        tools = server.tools.values()
        found = tuple(
            OfferedTool(tool.name, tool.description, tool.parameters, tool.read_only)
            for tool in tools
        )
        self._answer(ToolsListed(request.cause, found))

    async def _call(self, request: CallTool) -> None:
        self._calls += 1
        try:
            answer = await self._carry_out(request)
        finally:
            self._calls -= 1
        self._answer(ToolAnswered(request.cause, answer))

    async def _carry_out(self, request: CallTool) -> ToolAnswer:
        if self._calls > MOST_CALLS:
            message = f"More than {MOST_CALLS} calls are in progress."
            return ToolAnswer(message, ToolOutcome.FAILED, 0, request.name)
        try:
            server = await self._connected(request.server)
        except ToolError:
            return ToolAnswer(NOT_REACHED, ToolOutcome.FAILED, 0, request.name)
        if server.lost:
            return ToolAnswer(NOT_REACHED, ToolOutcome.FAILED, 0, request.name)
        if request.name not in server.tools:
            return NOT_THERE
        call = ToolCall(0, None, request.name, request.arguments)
        run = Toolbox(server.tools).start_call(call)
        try:
            return await run.wait_answer()
        finally:
            run.cancel()

    async def _connected(self, address: ToolServerAddress) -> ToolServer:
        """Return the server, and connect to it first if it is not connected. Raises
        ``ToolError``.
        """
        known = self._servers.get(address)
        if known is not None and known.done() and (_failed(known) or known.result().lost):
            self._forget(address)
            known = None
        if known is None:
            if len(self._servers) >= MOST_CONNECTIONS:
                raise ToolError(f"more than {MOST_CONNECTIONS} servers are connected")
            opening = self._connect(address)
            known = asyncio.get_running_loop().create_task(opening, name="tool-server")
            self._servers[address] = known
        await asyncio.wait({known})
        if known.cancelled():
            raise ToolError("the server was taken out of the session")
        return known.result()

    async def _connect(self, address: ToolServerAddress) -> ToolServer:
        server = await self._open(address)
        try:
            await server.start()
        except asyncio.CancelledError:
            await server.aclose()
            raise
        return server

    def _forget(self, address: ToolServerAddress) -> None:
        opening = self._servers.pop(address, None)
        if opening is None:
            return
        opening.cancel()
        closing = asyncio.get_running_loop().create_task(_close(opening), name="close-tools")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _close(opening: "asyncio.Task[ToolServer]") -> None:
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().aclose()


def _failed(opening: "asyncio.Task[ToolServer]") -> bool:
    return opening.cancelled() or opening.exception() is not None
