"""The tool with which a model ends the conversation. The session acts on its having
been used.
"""

from voicechat.runtime.tool_function import ServerTool, open_tool
from voicechat.session.agent_turns import END_CONVERSATION

ENDING = "The conversation ends as soon as your words have been heard."


async def end_conversation() -> str:
    """End this conversation, because the user has said goodbye or wants nothing more."""
    return ENDING


def end_conversation_tool() -> ServerTool:
    """Open the tool."""
    return open_tool(END_CONVERSATION, f"{__name__}:end_conversation")
