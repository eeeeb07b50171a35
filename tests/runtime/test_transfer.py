"""The tool that passes a conversation on."""

import pytest

from voicechat.errors import ToolError
from voicechat.runtime.transfer import CONNECTING, transfer_tool


async def test_only_those_who_are_listed_can_be_reached() -> None:
    tool = transfer_tool(["desk", "bar"])
    parameters = tool.definition["function"]["parameters"]  # type: ignore[index]
    assert parameters["properties"]["to"]["enum"] == ["bar", "desk"]
    assert await tool.function(**tool.read_arguments('{"to": "desk"}')) == CONNECTING  # type: ignore[misc]
    with pytest.raises(ToolError, match=r"nobody is called '\+1900'; there are: desk, bar"):
        await tool.function(to="+1900")  # type: ignore[misc]
