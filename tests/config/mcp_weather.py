"""An MCP server for tests; run as a program it speaks on its standard input."""

import asyncio

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

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
def storm() -> str:
    """Fail."""
    raise ToolError("no storm is known")


if __name__ == "__main__":
    server.run("stdio")
