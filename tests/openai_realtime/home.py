"""An MCP server in memory."""

import asyncio
from collections.abc import Mapping
from typing import Any

from voicechat.dialects.tool_servers import ToolServerAddress
from voicechat.errors import ToolError
from voicechat.runtime.tool_function import ServerTool
from voicechat.session.filler import Filler

URL = "https://tools.example/mcp"
NOT_ALLOWED = "it leads to an address that is not allowed"


class Home:
    """A tool server in memory, and who opens it."""

    def __init__(self, *, wait_ms: int = 0, lost: bool = False) -> None:
        self.lost = lost
        self.opened: list[ToolServerAddress] = []
        self.closed = 0
        self.asked: list[tuple[str, Mapping[str, object]]] = []
        self.answer = asyncio.Event()
        self.answer.set()
        self._wait_s = wait_ms / 1000

    name = "home"

    @property
    def tools(self) -> Mapping[str, ServerTool]:
        return {} if self.lost else {name: self._tool(name) for name in ("lamp", "read", "break")}

    async def start(self) -> None:
        await asyncio.sleep(self._wait_s)

    async def aclose(self) -> None:
        self.closed += 1

    async def open(self, address: ToolServerAddress) -> "Home":
        self.opened.append(address)
        if "private" in address.url:
            raise ToolError(NOT_ALLOWED)
        return self

    def _tool(self, name: str) -> ServerTool:
        async def call(**arguments: object) -> str:
            self.asked.append((name, arguments))
            await self.answer.wait()
            if name == "break":
                raise ToolError("it is broken")
            return f"{name} done"

        return ServerTool(
            name=name,
            function=call,
            description=f"Do {name}.",
            parameters={"type": "object", "properties": {"on": {"type": "boolean"}}},
            arguments=None,
            deadline_s=5.0,
            filler=Filler(),
            filler_after_ms=1_000,
            read_only=name == "read",
        )


def mcp(**more: Any) -> dict[str, Any]:
    """How a client names it."""
    return {
        "type": "mcp",
        "server_label": "home",
        "server_url": URL,
        "require_approval": "never",
        **more,
    }
