"""The tool that ends the conversation. The session ends it when the model has called
the tool.
"""

from voicechat.runtime.tool_function import ServerTool, open_tool
from voicechat.session.agent_turns import END_CONVERSATION

DESCRIPTION = "End this conversation, because the user has said goodbye or wants nothing more."
ENDING = "The conversation ends as soon as your words have been heard."


async def end_conversation() -> str:
    """Acknowledge the call; the session does the rest."""
    return ENDING


def end_conversation_tool() -> ServerTool:
    """Open the tool."""
    return open_tool(END_CONVERSATION, f"{__name__}:end_conversation", description=DESCRIPTION)
