"""A chat model that carries the server's tools out by itself, and leaves the client's
to the client.
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
from voicechat.runtime.tool_function import Filler, ServerTool
from voicechat.runtime.toolbox import NOT_THERE, Toolbox, ToolRun
from voicechat.session.tool_calls import CallsGathered, exchange_messages, options_after_calls
from voicechat.session.vocabulary import Message, ToolCall, ToolExchange

ROUNDS = 8
"""How often the model may call the server's tools in one reply; then it must answer
without.
"""
LINE_END = "\n"
"""Ends what is said before a tool works, so that it is spoken meanwhile."""


class ToolCallingModel(WrappingModel):
    """A `ChatModel` around another one."""

    def __init__(self, model: ChatModel, toolbox: Toolbox) -> None:
        """A tool of the client with the name of one of ``toolbox`` takes its place."""
        super().__init__(model)
        self._toolbox = toolbox

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """See `ChatModel`. Cancelling cancels the model and the tools."""
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

    def _offer(
        self, options: Mapping[str, object]
    ) -> tuple[Set[str], Mapping[str, ServerTool], dict[str, object]]:
        """The names of the client's tools, the server's own, and the model's options
        with both.
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
    """What is to be said while the tools work: nothing, if they are quick or have
    nothing to say.
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
    """One answer of the model: what is passed on at once, and which calls are the
    server's.
    """

    def __init__(self, theirs: Set[str], prefix: str) -> None:
        """``theirs``: names of the client's tools. ``prefix`` begins the ids of calls
        that have none.
        """
        self._theirs = theirs
        self._gathered = CallsGathered(prefix)
        self._unnamed: dict[int, list[ToolCall]] = {}
        self.said = ""
        self.asks_client = False
        self.finished = ReplyFinished()

    def take(self, part: ReplyPart) -> Iterator[ReplyPart]:
        """Take the next part, and give what is to be passed on."""
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
        """The whole calls that are not the client's: of the server's tools, and of
        tools that there are not.
        """
        calls = self._gathered.finish(self.finished.finish_reason)
        return tuple(call for call in calls if call.name not in self._theirs)

    def _take_call(self, piece: ToolCall) -> Iterator[ToolCall]:
        told = self._gathered.take(piece)
        if told is None:
            return
        name = self._gathered.name_of(told.index)
        if not name:  # some servers give it with a later piece
            self._unnamed.setdefault(told.index, []).append(told)
        elif name in self._theirs:
            self.asks_client = True
            yield from self._unnamed.pop(told.index, [])
            yield told


class _UsageTotal:
    """The tokens of all answers of one reply, as far as they are told."""

    def __init__(self) -> None:
        self._prompt: int | None = None
        self._completion: int | None = None

    def add(self, finished: ReplyFinished) -> None:
        """Add what one answer used."""
        if finished.prompt_tokens is not None:
            self._prompt = (self._prompt or 0) + finished.prompt_tokens
        if finished.completion_tokens is not None:
            self._completion = (self._completion or 0) + finished.completion_tokens

    def finish(self, reason: str) -> ReplyFinished:
        """The closing word of the reply."""
        return ReplyFinished(reason, self._prompt, self._completion)
