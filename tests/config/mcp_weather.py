"""An MCP server for tests; run as a program it speaks on its standard input."""

import asyncio

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

server = MCPServer("weather")


@server.tool()
def weather(city: str) -> str:
    """Tell the weather."""
    return f"it rains in {city}"


@server.tool()
async def forecast(city: str) -> str:
    """Take long."""
    await asyncio.sleep(60)
    return city


@server.tool()
async def tide(context: Context) -> str:
    """Take long, and say so."""
    for step in range(4):
        await asyncio.sleep(0.4)
        await context.report_progress(step, 4)
    return "it is high"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def flood() -> str:
    """Answer too much."""
    return "water " * 200_000


@server.tool()
def storm() -> str:
    """Fail."""
    raise ToolError("no storm is known")


if __name__ == "__main__":
    server.run("stdio")
