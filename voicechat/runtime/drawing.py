"""The tool with which a chat model has pictures drawn for its user.

A picture takes seconds to minutes. So the tool waits only for a while, and then
answers that the picture is still being drawn: the conversation continues, and the
client gets the picture when it is finished. An interruption of the reply does not stop
the drawing.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Protocol, TypeAlias

from pydantic import Field

from voicechat.dialects.drawings import Drawing
from voicechat.errors import ToolError
from voicechat.runtime.error_location import location_of
from voicechat.runtime.tool_function import ServerTool, open_tool
from voicechat.session.filler import Filler

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 4
"""Most pictures that are drawn at once for one conversation."""
MAX_PROMPT_CHARACTERS = 4_000
ANSWER_S = 1.0
"""How much longer than the wait for the picture the tool itself may take."""
DESCRIPTION = (
    "Draw a picture for the user, who sees it on their screen. Call it when the user asks for "
    "a picture, and not otherwise. Do not describe the picture at length afterwards."
)
FILLER = Filler(en="I am drawing it.", zh="我正在画。")
"""What is spoken while a picture is drawn, unless the configuration has a filler."""

SHOWN = "The picture is drawn, and the user sees it now."
NOT_SHOWN = (
    "The picture is drawn and kept on the server, but the user cannot see pictures in this "
    "conversation. Say so."
)
IN_PROGRESS = (
    "The picture is still being drawn. The user will see it as soon as it is finished; go on "
    "with the conversation."
)
IN_PROGRESS_NOT_SHOWN = (
    "The picture is still being drawn, and will be kept on the server: the user cannot see "
    "pictures in this conversation. Say so, and go on with the conversation."
)
TOO_MANY = f"{MOST_AT_ONCE} pictures are being drawn for this user already. Wait for them."


Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class DrawPicture(Protocol):
    """Draws pictures for one caller. The picture outlives the conversation."""

    async def __call__(self, service: str, prompt: str) -> Drawing:
        """Draw a picture by the configured service of that name.

        Raises ``ToolError``, whose text the model reads. Cancelling stops the wait, not
        the drawing.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingTool:
    """A configured tool that draws."""

    service: str
    """The name of the service for pictures."""
    description: str = ""
    """For the model; empty: ``DESCRIPTION``."""
    wait_s: float = 10.0
    """How long the model waits for a picture."""
    filler: Filler = FILLER
    filler_after_ms: int = 1_000


class SessionDrawings:
    """The pictures that are drawn for one conversation."""

    def __init__(self, draw: DrawPicture) -> None:
        self._draw = draw
        self._spawn: Spawn | None = None
        self._show: Callable[[Drawing], None] = lambda _: None
        self._shows = False
        self._at_work = 0

    def attach(self, spawn: Spawn, show: Callable[[Drawing], None], *, shows: bool) -> None:
        """Begin to draw. ``spawn`` starts tasks that end with the session; ``show`` is
        called with each picture, and with each that could not be made after the model
        had stopped waiting for it. ``shows``:
        whether the client sees them.
        """
        self._spawn, self._show, self._shows = spawn, show, shows

    def detach(self) -> None:
        """The session is over: call ``show`` no more."""
        self._spawn, self._show = None, lambda _: None

    def tools(
        self, configured: Mapping[str, DrawingTool], names: Collection[str] | None
    ) -> list[ServerTool]:
        """Return the ``configured`` tools that are in ``names`` (None: all), as tools
        of this conversation.
        """
        return [
            self._opened(name, tool)
            for name, tool in configured.items()
            if names is None or name in names
        ]

    def _opened(self, name: str, tool: DrawingTool) -> ServerTool:
        own = open_tool(
            name,
            f"{__name__}:draw",
            description=tool.description or DESCRIPTION,
            deadline_s=tool.wait_s + ANSWER_S,
            filler=tool.filler,
            filler_after_ms=tool.filler_after_ms,
        )
        return replace(own, function=partial(self._answer, tool))

    async def _answer(self, tool: DrawingTool, prompt: str) -> str:
        """Have a picture drawn, and tell the model what has become of it."""
        if not prompt.strip():
            raise ToolError("prompt: is empty; say what the picture shows")
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise ToolError(
                f"prompt: {len(prompt)} characters are more than {MAX_PROMPT_CHARACTERS}"
            )
        if self._spawn is None:
            raise ToolError("The conversation is over.")
        if self._at_work >= MOST_AT_ONCE:
            raise ToolError(TOO_MANY)
        order = _Order(tool.service, prompt)
        self._at_work += 1
        drawing = self._spawn(self._carry_out(order), "drawing")
        drawing.add_done_callback(self._on_done)
        try:
            await asyncio.wait({drawing}, timeout=tool.wait_s)
        finally:
            order.awaited = False
        if order.drawing is None:
            return IN_PROGRESS if self._shows else IN_PROGRESS_NOT_SHOWN
        if order.drawing.failure:
            raise ToolError(f"The picture could not be drawn: {order.drawing.failure}")
        return SHOWN if self._shows else NOT_SHOWN

    async def _carry_out(self, order: "_Order") -> None:
        try:
            drawing = await self._draw(order.service, order.prompt)
        except ToolError as error:
            drawing = Drawing(id="", prompt=order.prompt, failure=str(error))
        except Exception as error:  # noqa: BLE001 - a fault in drawing must not end the conversation
            place = location_of(error)
            logger.error("drawing failed: %s at %s", type(error).__name__, place)
            drawing = Drawing(id="", prompt=order.prompt, failure="the server failed")
        order.drawing = drawing
        if not (drawing.failure and order.awaited):  # then the model reports the failure
            self._show(drawing)

    def _on_done(self, _: "asyncio.Task[None]") -> None:
        self._at_work -= 1


@dataclass(slots=True)
class _Order:
    """A picture that the model has asked for."""

    service: str
    prompt: str
    drawing: Drawing | None = None
    """The picture, or why there is none; None: it is not finished."""
    awaited: bool = True
    """Whether the model still waits for it."""


async def draw(
    prompt: Annotated[str, Field(description="What the picture shows, in detail and in English")],
) -> str:
    """Define the arguments of the tool; a conversation's own function replaces it."""
    raise ToolError("No pictures can be drawn here.")
