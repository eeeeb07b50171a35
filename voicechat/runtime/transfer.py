"""The tool that transfers the conversation to somebody else. The session ends the
conversation once the model has called the tool and its last words have been played.
"""

from collections.abc import Collection
from dataclasses import replace

from voicechat.errors import ToolError
from voicechat.runtime.tool_function import ServerTool, open_tool
from voicechat.session.agent_turns import TRANSFER

DESCRIPTION = (
    "Connect the user with somebody else, because they ask for it or you cannot help. "
    "Say in a few words with whom."
)
CONNECTING = "The user is connected as soon as your words have been heard."


async def transfer(to: str) -> str:
    """Acknowledge the call; the session does the rest."""
    return CONNECTING


def transfer_tool(names: Collection[str]) -> ServerTool:
    """Open the tool. ``names`` are the destinations that the model may choose."""

    async def checked(to: str) -> str:
        if to not in names:
            raise ToolError(f"to: nobody is called {to!r}; there are: {', '.join(names)}")
        return await transfer(to)

    parameters = {
        "type": "object",
        "properties": {"to": {"type": "string", "enum": sorted(names)}},
        "required": ["to"],
    }
    tool = open_tool(
        TRANSFER, f"{__name__}:transfer", description=DESCRIPTION, parameters=parameters
    )
    return replace(tool, function=checked)
