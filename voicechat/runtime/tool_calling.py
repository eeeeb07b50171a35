"""A chat model that runs the server's tools itself and passes calls of the client's
tools on.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Set
from typing import Any

from voicechat.providers.builtin import last_user_text
from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ToolsStarted,
)
from voicechat.providers.wrapping import WrappingModel
from voicechat.runtime.provider_deadlines import closing
from voicechat.runtime.tool_function import ServerTool
from voicechat.runtime.toolbox import NOT_THERE, Toolbox, ToolRun
from voicechat.session.filler import LINE_END, Filler
from voicechat.session.tool_calls import ToolCallAccumulator, exchange_messages, options_after_calls
from voicechat.session.types import Message, ToolCall, ToolExchange

ROUNDS = 8
"""How often the model may call the server's tools in one reply. After that it must
answer without them.
"""


class ToolCallingModel(WrappingModel):
    """A `ChatModel` around another one that runs the tools of a `Toolbox`."""

    def __init__(self, model: ChatModel, toolbox: Toolbox) -> None:
        """If the client defines a tool with the name of one in ``toolbox``, the
        client's is used.
        """
        super().__init__(model)
        self._toolbox = toolbox

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the reply, including the rounds of tool calls. Cancelling cancels the
        model and the tools.
        """
        theirs, own, options = self._offer(request.options)
        messages = request.messages
        used = _UsageTotal()
        silent = True
        for rounds_left in range(ROUNDS, -1, -1):
            answer = _ModelAnswer(theirs, f"call_own_{len(messages)}")
            parts = self._inner.reply(ChatRequest(messages=messages, options=options))
            async with closing(parts):
                async for part in parts:
                    for passed in answer.take(part):
                        yield passed
            used.add(answer.finished)
            calls = answer.calls() if rounds_left else ()
            if not calls:
                yield used.finish(answer.finished.finish_reason)
                return
            said = answer.said.strip()
            silent = silent and not said
            if said and not answer.said.endswith(LINE_END):
                yield TextDelta(LINE_END)
            yield ToolsStarted(
                max(
                    (own[name].deadline_s for call in calls if (name := str(call.name)) in own),
                    default=0,
                )
            )
            runs = {
                str(call.id): self._toolbox.start_call(call) for call in calls if call.name in own
            }
            try:
                if silent and (filler := await _filler(runs.values())) is not None:
                    silent = False
                    yield TextDelta(filler.text_for(last_user_text(messages)) + LINE_END)
                answers = {call_id: await run.wait_answer() for call_id, run in runs.items()}
            finally:
                for run in runs.values():
                    run.cancel()
            exchange = ToolExchange(
                calls, tuple(answers.get(str(call.id), NOT_THERE) for call in calls)
            )
            yield exchange
            if answer.asks_client:
                yield used.finish("tool_calls")
                return
            messages = (*messages, *_messages(said, exchange))
            options = options_after_calls(options, may_call=rounds_left > 1)

    async def prepare(self, request: ChatRequest) -> None:
        """Have the model process the prompt, with the definitions of the tools."""
        _, _, options = self._offer(request.options)
        await super().prepare(ChatRequest(messages=request.messages, options=options))

    def _offer(
        self, options: Mapping[str, object]
    ) -> tuple[Set[str], Mapping[str, ServerTool], dict[str, object]]:
        """Return the names of the client's tools, the server's tools by name, and the
        model's options with both.
        """
        given: Any = options.get("tools") or []
        theirs = frozenset(tool["function"]["name"] for tool in given)
        own = {name: tool for name, tool in self._toolbox.tools.items() if name not in theirs}
        return (
            theirs,
            own,
            {**options, "tools": [*given, *(tool.definition for tool in own.values())]},
        )


async def _filler(runs: Collection[ToolRun]) -> Filler | None:
    """Return what to say while the tools run, or None if they end within
    ``filler_after_ms`` or have no filler.
    """
    fillers = [run.tool for run in runs if run.tool.filler != Filler()]
    if not fillers:
        return None
    wait_ms = min(tool.filler_after_ms for tool in fillers)
    _, working = await asyncio.wait([run.task for run in runs], timeout=wait_ms / 1000)
    return fillers[0].filler if working else None


def _messages(said: str, exchange: ToolExchange) -> list[Message]:
    answers = zip(exchange.calls, exchange.answers, strict=True)
    return exchange_messages(
        said, exchange.calls, {str(call.id): answer.content for call, answer in answers}
    )


class _ModelAnswer:
    """One answer of the model, split into the parts that are passed on at once and the
    calls of the server's tools.
    """

    def __init__(self, theirs: Set[str], prefix: str) -> None:
        """``theirs``: names of the client's tools. ``prefix`` begins the ids of calls
        without one.
        """
        self._theirs = theirs
        self._gathered = ToolCallAccumulator(prefix)
        self._unnamed: dict[int, list[ToolCall]] = {}
        self.said = ""
        self.asks_client = False
        self.finished = ReplyFinished()

    def take(self, part: ReplyPart) -> Iterator[ReplyPart]:
        """Process the next part. Yields the parts that are passed on."""
        match part:
            case ReplyFinished():
                self.finished = part
            case ToolCall():
                yield from self._take_call(part)
            case TextDelta():
                self.said += part.text
                yield part
            case _:
                yield part

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the complete calls that are not the client's: of the server's tools,
        and of tools that do not exist.
        """
        calls = self._gathered.finish_calls(self.finished.finish_reason)
        return tuple(call for call in calls if call.name not in self._theirs)

    def _take_call(self, piece: ToolCall) -> Iterator[ToolCall]:
        call = self._gathered.add_piece(piece)
        if call is None:
            return
        name = self._gathered.name_of(call.index)
        if not name:  # some servers give it with a later piece
            self._unnamed.setdefault(call.index, []).append(call)
        elif name in self._theirs:
            self.asks_client = True
            yield from self._unnamed.pop(call.index, [])
            yield call


class _UsageTotal:
    """The sum of the tokens that all answers of one reply report."""

    def __init__(self) -> None:
        self._prompt: int | None = None
        self._completion: int | None = None

    def add(self, finished: ReplyFinished) -> None:
        """Add the tokens of one answer."""
        if finished.prompt_tokens is not None:
            self._prompt = (self._prompt or 0) + finished.prompt_tokens
        if finished.completion_tokens is not None:
            self._completion = (self._completion or 0) + finished.completion_tokens

    def finish(self, reason: str) -> ReplyFinished:
        """Return the end of the reply, with the total usage."""
        return ReplyFinished(reason, self._prompt, self._completion)
