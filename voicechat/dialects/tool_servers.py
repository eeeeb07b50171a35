"""The messages between a dialect and the runtime about tool servers that a client
names: programs on the network whose tools the chat model may call.

The dialect puts a ``ToolRequest`` among its reactions. The runtime answers each
``ListTools`` and each ``CallTool`` exactly once, through ``Dialect.hear_tools``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from voicechat.session.types import ToolAnswer


@dataclass(frozen=True, slots=True)
class ToolServerAddress:
    """Where a tool server is, and what is sent to it with each request."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """One tool that a server has."""

    name: str
    description: str
    parameters: Mapping[str, object]
    """JSON Schema of its arguments."""
    read_only: bool = False
    """Whether the server declares the tool read-only."""


@dataclass(frozen=True, slots=True)
class ListTools:
    """Connect to a server and ask which tools it has. The answer carries ``cause``."""

    server: ToolServerAddress
    cause: object


@dataclass(frozen=True, slots=True)
class CallTool:
    """Call one tool; ``arguments`` is JSON text. The answer carries ``cause``."""

    server: ToolServerAddress
    name: str
    arguments: str
    cause: object


@dataclass(frozen=True, slots=True)
class ForgetToolServer:
    """Close the connection to a server."""

    server: ToolServerAddress


ToolRequest: TypeAlias = ListTools | CallTool | ForgetToolServer


@dataclass(frozen=True, slots=True)
class ToolsListed:
    """The tools of a server."""

    cause: object
    tools: tuple[OfferedTool, ...] = ()
    failure: str = ""
    """Why the server could not be asked, worded for the client; empty: it has answered.
    """


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    """What a tool answered, or why it did not answer."""

    cause: object
    answer: ToolAnswer


ToolNews: TypeAlias = ToolsListed | ToolAnswered
