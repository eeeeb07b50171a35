"""Runs tools: coroutine functions as tasks, others in threads, each with a deadline.

A function that does not react to cancellation is abandoned: its task or thread runs
until it ends. It does not delay the reply. The number of threads is bounded, so
functions that never return cannot exhaust them.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from pydantic_core import PydanticSerializationError, to_json

from voicechat.errors import ToolError
from voicechat.runtime.error_location import location_of
from voicechat.runtime.tool_function import ServerTool, is_asynchronous
from voicechat.session.types import ToolAnswer, ToolCall, ToolOutcome

logger = logging.getLogger(__name__)

THREADS = 16
"""How many plain functions run at once."""
MAX_ANSWER_CHARACTERS = 16_384
"""Limit of one tool's answer, because the model reads it in every later turn. Longer
answers are cut.
"""
CLOSE_S = 1.0
"""How long cancelled tasks may take to end when the server stops."""

FAILED = "The tool failed."
LATE = "The tool did not answer in time."
NOT_THERE = ToolAnswer("There is no tool of this name.", ToolOutcome.FAILED, 0, "(unknown)")
"""The answer to a call of a tool that does not exist."""


class ToolServer(Protocol):
    """A program that has tools of its own."""

    @property
    def name(self) -> str:
        """The configured name, which stands for all of its tools."""

    @property
    def tools(self) -> Mapping[str, ServerTool]:
        """The tools that it offers now, by name; empty while it cannot be reached."""

    @property
    def lost(self) -> bool:
        """Whether it is disconnected for good."""

    async def start(self) -> None:
        """Connect to it. Never raises, whatever the server does."""

    async def aclose(self) -> None:
        """Disconnect."""


class ToolRun:
    """One call of a tool in progress."""

    def __init__(self, tool: ServerTool, task: "asyncio.Task[str]") -> None:
        self.tool = tool
        self.task = task
        self._loop = asyncio.get_running_loop()
        self._began_s = self._ended_s = self._loop.time()
        task.add_done_callback(self._note_end)

    def cancel(self) -> None:
        """Cancel the call. A coroutine function sees it in the next iteration of the
        event loop.
        """
        self.task.cancel()

    async def wait_answer(self) -> ToolAnswer:
        """Wait for the answer, until the tool's deadline. Cancelling stops the wait,
        not the tool.
        """
        left_s = self._began_s + self.tool.deadline_s - self._loop.time()
        await asyncio.wait({self.task}, timeout=max(0.0, left_s))
        outcome, content = self._result()
        if outcome is ToolOutcome.TIMEOUT:
            self._note_end(self.task)
            self.task.cancel()
        took_ms = int((self._ended_s - self._began_s) * 1000)
        return ToolAnswer(content, outcome, took_ms, self.tool.name)

    def _note_end(self, _: "asyncio.Task[str]") -> None:
        self._ended_s = self._loop.time()

    def _result(self) -> tuple[ToolOutcome, str]:
        if not self.task.done():
            return ToolOutcome.TIMEOUT, LATE
        if self.task.cancelled():
            return ToolOutcome.FAILED, FAILED
        error = self.task.exception()
        if error is None:
            return ToolOutcome.ANSWERED, self.task.result()
        if isinstance(error, TimeoutError):
            return ToolOutcome.TIMEOUT, LATE
        if isinstance(error, ToolError):
            return ToolOutcome.FAILED, _bounded(str(error))
        # Do not pass its text to the model, which might repeat it to the user.
        logger.warning(
            "tool %s raised %s at %s", self.tool.name, type(error).__name__, location_of(error)
        )
        return ToolOutcome.FAILED, FAILED


class Toolbox:
    """The configured tools."""

    def __init__(self, tools: Mapping[str, ServerTool], servers: Sequence[ToolServer] = ()) -> None:
        """``servers`` add the tools that they have when a conversation begins."""
        self.tools = tools
        self._servers = servers
        self._slots = asyncio.Semaphore(THREADS)
        self._tasks: set[asyncio.Task[str]] = set()

    def narrowed(self, names: Collection[str] | None, more: Mapping[str, ServerTool]) -> "Toolbox":
        """Return a toolbox of the tools in ``names`` (None: all) and ``more``. It
        shares this one's limits and tasks. A server's name stands for all its tools.
        """
        offered: dict[str, ServerTool] = {}
        for server in self._servers:
            if names is None or server.name in names:
                offered |= server.tools
        own = {name: tool for name, tool in self.tools.items() if names is None or name in names}
        chosen = offered | own
        part = Toolbox({**chosen, **more})
        part._slots, part._tasks = self._slots, self._tasks
        return part

    def start_call(self, call: ToolCall) -> ToolRun:
        """Start a call. Its ``name`` must be that of one of the ``tools``."""
        tool = self.tools[str(call.name)]
        task = asyncio.get_running_loop().create_task(
            self._carry_out(tool, call.arguments), name=f"tool-{tool.name}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return ToolRun(tool, task)

    async def start(self) -> None:
        """Connect to the servers."""
        await asyncio.gather(*(server.start() for server in self._servers))

    async def aclose(self) -> None:
        """Cancel the running calls, wait for them at most ``CLOSE_S``, and close the
        connections to the servers.
        """
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        await asyncio.gather(*(server.aclose() for server in self._servers))

    async def _carry_out(self, tool: ServerTool, given: str) -> str:
        arguments = tool.read_arguments(given)
        if is_asynchronous(tool.function):
            return _text_of(await tool.function(**arguments))
        return await self._in_thread(
            lambda: _text_of(tool.function(**arguments)), f"tool-{tool.name}"
        )

    async def _in_thread(self, work: Callable[[], str], name: str) -> str:
        """Run ``work`` in a daemon thread. Unlike an executor's, it does not delay the
        exit of the process.
        """
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Callable[[], str]] = loop.create_future()

        def settle(outcome: Callable[[], str]) -> None:
            self._slots.release()
            if not done.done():
                done.set_result(outcome)

        def run() -> None:
            outcome = _outcome_of(work)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, outcome)

        threading.Thread(target=run, name=name, daemon=True).start()
        return (await done)()

    def _on_done(self, task: "asyncio.Task[str]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # mark it as retrieved if the call was abandoned


def _outcome_of(work: Callable[[], str]) -> Callable[[], str]:
    """Call ``work``. Returns a function that returns its result or raises its error."""
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - raised again by the caller
        failure = error

        def fail() -> str:
            raise failure

        return fail
    return lambda: result


def _text_of(result: object) -> str:
    """Return the answer for the model: text unchanged, anything else as JSON. Raises
    ``ToolError`` if it cannot be written as JSON.
    """
    if isinstance(result, str):
        return _bounded(result)
    try:
        return _bounded(to_json(result).decode())
    except PydanticSerializationError:
        raise ToolError("The tool's answer cannot be written as JSON.") from None


def _bounded(text: str) -> str:
    return (
        text if len(text) <= MAX_ANSWER_CHARACTERS else text[:MAX_ANSWER_CHARACTERS] + "... (cut)"
    )
