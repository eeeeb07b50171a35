"""Opens the MCP servers that clients name, with a check of their addresses.

The check is the same as for recordings that the server fetches: public addresses and
those of ``[transcription] allowed_networks`` are allowed, at its ``allowed_ports``.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from yarl import URL

from voicechat.config.mcp_server import McpServer, McpSettings, import_client
from voicechat.dialects.tool_servers import ToolServerAddress
from voicechat.errors import ConfigError, ToolError
from voicechat.server.fetch import MAX_URL_CHARACTERS, FetchPolicy, NameResolver, check_address

if TYPE_CHECKING:
    import httpx2

DEADLINE_S = 10.0
"""Time limit of one call, and between two reports of its progress."""


class ClientToolServers:
    """Opens tool servers for all sessions of a process."""

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._names = NameResolver()

    async def open(self, address: ToolServerAddress, *, owner: str) -> McpServer:
        """Prepare the server at an address for a client with the key ``owner``. Raises
        ``ToolError``.
        """
        if len(address.url) > MAX_URL_CHARACTERS:
            raise ToolError(f"server_url: longer than {MAX_URL_CHARACTERS} characters")
        try:
            check_address(URL(address.url), self._policy)
        except ValueError as error:
            raise ToolError(f"server_url: {error}") from None
        try:
            await asyncio.to_thread(import_client)
        except ConfigError:
            raise ToolError("this server cannot speak MCP") from None
        settings = McpSettings(
            url=address.url,
            http_client=partial(self._http_client, address, owner),
            deadline_s=DEADLINE_S,
            retries=False,
        )
        return McpServer("(client)", settings)

    def _http_client(self, address: ToolServerAddress, owner: str) -> "httpx2.AsyncClient":
        import httpx2

        from voicechat.server.guarded_http import GuardedTransport

        transport = GuardedTransport(self._policy, self._names.resolver_for(owner))
        return httpx2.AsyncClient(
            transport=transport, headers=dict(address.headers), trust_env=False
        )
