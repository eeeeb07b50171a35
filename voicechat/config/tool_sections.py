"""The sections of tools, the server's and the clients', and of what is said while
one takes long.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from voicechat.config.section import ConfigSection, Text, as_tuple
from voicechat.runtime.drawing import FILLER, DrawingTool
from voicechat.session.filler import AFTER_MS, Filler


class FillerConfig(ConfigSection):
    """``[tools.NAME.filler]``, ``[agents.NAME.filler]``: what the agent says while a
    slow tool runs. If only one language is set, its text serves both.
    """

    en: str = ""
    """For a user who spoke English."""
    zh: str = ""
    """For a user who spoke Chinese."""

    @property
    def filler(self) -> Filler:
        """The texts."""
        return Filler(self.en, self.zh)


def in_both_languages(filler: object) -> object:
    """Return one text as that of both languages. Raises ``ValueError``."""
    if not isinstance(filler, str | dict):
        raise ValueError("a text, or a table with the keys en and zh")
    return {"en": filler, "zh": filler} if isinstance(filler, str) else filler


class ToolConfig(ConfigSection):
    """``[tools.NAME]``: a tool that the models may call in conversations: a Python
    function, the tools of an MCP server, or a service that draws pictures.
    """

    function: str = ""
    """``package.module:function``, asynchronous or not."""
    mcp_url: str = ""
    """The address of an MCP server (streamable HTTP), instead of ``function``."""
    mcp_command: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """The command that starts an MCP server as a child process (stdio), instead of
    ``function``.
    """
    mcp_headers: dict[str, str] = {}
    """Headers of the requests to ``mcp_url``, such as ``Authorization``."""
    mcp_tools: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] | None = None
    """Which tools of the MCP server the models may call. Unset: all."""
    images: str = ""
    """The name of a service ``[images.NAME]``, instead of ``function``. It draws what
    the model describes, and the client receives the addresses of the pictures.
    """
    description: str = ""
    """What the tool does, for the model. Empty: the function's docstring."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments. Unset: derived from the function's annotations."""
    deadline_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """After this time the model is told that the tool has not answered, or that the
    picture is still being drawn.
    """
    filler: Annotated[FillerConfig, BeforeValidator(in_both_languages)] = FillerConfig()
    """What the agent says while the tool runs: a text, or the table below."""
    filler_after_ms: Annotated[int, Field(ge=0, le=60_000)] = AFTER_MS
    """How long the tool may run before the filler is spoken."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "ToolConfig":
        kinds = ("function", "mcp_url", "mcp_command", "images")
        named = [kind for kind in kinds if getattr(self, kind)]
        if len(named) != 1:
            raise ValueError(f"a table with exactly one of {', '.join(kinds)}")
        if self.images and self.parameters is not None:
            raise ValueError("a table without parameters: images has a prompt and no others")
        return self

    @property
    def is_mcp(self) -> bool:
        """Whether it is an MCP server."""
        return bool(self.mcp_url or self.mcp_command)

    @property
    def drawing(self) -> DrawingTool:
        """The tool that draws, if ``images`` is set."""
        return DrawingTool(
            service=self.images,
            description=self.description,
            wait_s=self.deadline_s,
            filler=self.filler.filler if "filler" in self.model_fields_set else FILLER,
            filler_after_ms=self.filler_after_ms,
        )


class ClientToolConfig(ConfigSection):
    """``[agents.NAME.client_tools.NAME]``: a function that an RTVI client carries
    out.
    """

    description: Text
    """What the function does, for the model."""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    """JSON Schema of its arguments."""

    def definition(self, name: str) -> dict[str, object]:
        """Return it in the form of chat completions."""
        function = {"description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": {"name": name, **function}}
