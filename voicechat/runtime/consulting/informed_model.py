"""A chat model that answers from what an agent knows, and says what it has used."""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from voicechat.knowledge.interface import Finding, Findings, QaRecord
from voicechat.providers.builtin import last_user_text
from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    Extras,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ToolsStarted,
)
from voicechat.providers.wrapping import WrappingModel
from voicechat.runtime.consulting.evidence import used_by
from voicechat.runtime.consulting.material import material_message
from voicechat.runtime.consulting.search_ahead import Knowledge
from voicechat.runtime.provider_deadlines import closing
from voicechat.session.types import Source, SourcesCited, ToolCall, ToolExchange
from voicechat.text.citations import CitationMarks, CitedText

MOST_EVIDENCE_CHARACTERS = 8_000
"""How much of a reply without marks is compared with the material."""

_AFTER_TEXT = (ToolCall, ToolsStarted, ToolExchange, ReplyFinished)
"""Parts that follow the text before them, so that text which is still undecided is
flushed first.
"""

UrlOf: TypeAlias = Callable[[Finding], str]
"""Returns where a client can read what was found; empty: nowhere."""


class InformedModel(WrappingModel):
    """A `ChatModel` around another one, for one conversation or request.

    What is found for the user's last message is quoted before that message, in this
    request only. The marks with which the model cites it become ``SourcesCited``. A
    question that has a fixed answer gets that answer, and the model is not asked.
    """

    def __init__(
        self,
        model: ChatModel,
        knowledge: Knowledge,
        *,
        url_of: UrlOf,
        keeps_marks: bool,
        looked_up: Mapping[int, Finding] | None = None,
    ) -> None:
        """``keeps_marks``: the marks stay in the text, numbered as the sources are;
        False: they are left out, because the text is spoken. ``looked_up``: what the
        model has found by itself with a tool, by its number; it grows meanwhile.
        """
        super().__init__(model)
        self._knowledge = knowledge
        self._url_of = url_of
        self._keeps_marks = keeps_marks
        self._looks_up = looked_up is not None
        self._looked_up = {} if looked_up is None else looked_up

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the reply. Raises what the model raises; a failed search is none of
        it.
        """
        question = last_user_text(request.messages)
        findings = await self._knowledge.find(question) if question else Findings()
        if findings.answer is not None and _may_answer(request):
            for part in self._fixed_answer(findings.answer):
                yield part
            return
        material = dict(enumerate(findings.found, 1))
        request = _with_material(request, material, question)
        if not material and not self._looks_up:
            # Nothing can be cited, so no text is searched for marks: that would cost as
            # much for each token as all other filters together.
            parts = self._inner.reply(request)
            async with closing(parts):
                async for part in parts:
                    yield part
            return
        citing = _Citing(
            material, self._looked_up, url_of=self._url_of, keeps_marks=self._keeps_marks
        )
        parts = self._inner.reply(request)
        async with closing(parts):
            async for part in parts:
                if isinstance(part, TextDelta) and part.text:
                    for piece in citing.add_text(part.text, part.extras):
                        yield piece
                    continue
                if isinstance(part, _AFTER_TEXT):
                    for piece in citing.end_text():
                        yield piece
                if isinstance(part, ReplyFinished):
                    for piece in citing.evidence(question, part.finish_reason):
                        yield piece
                yield part
        for piece in citing.end_text():
            yield piece

    async def prepare(self, request: ChatRequest) -> None:
        """Have the model process the prompt with what has been found so far, because
        the material is most of it.
        """
        question = last_user_text(request.messages)
        found = self._knowledge.found_so_far(question).found
        await super().prepare(_with_material(request, dict(enumerate(found, 1)), question))

    def _fixed_answer(self, record: QaRecord) -> Iterator[ReplyPart]:
        finding = Finding(
            kind="qa",
            source_id=record.id,
            scope=record.scope,
            title=record.question,
            content=record.answer,
            score=1.0,
        )
        yield TextDelta(record.answer)
        yield SourcesCited((_source(1, finding, self._url_of),))
        yield ReplyFinished("stop")


class _Citing:
    """Turns the marks in one reply into sources."""

    def __init__(
        self,
        material: Mapping[int, Finding],
        looked_up: Mapping[int, Finding],
        *,
        url_of: UrlOf,
        keeps_marks: bool,
    ) -> None:
        self._material = material
        self._looked_up = looked_up
        self._url_of = url_of
        self._keeps_marks = keeps_marks
        self._marks = CitationMarks(lambda number: self._finding(number) is not None)
        self._indexes: dict[int, int] = {}
        """The sources' indexes by the numbers of the material."""
        self._said: list[str] = []
        self._said_characters = 0

    def add_text(self, text: str, extras: Extras | None) -> Iterator[ReplyPart]:
        """Add text of the model. ``extras`` go with its first piece."""
        for part in self._parts(self._marks.push_text(text)):
            if extras is not None and isinstance(part, TextDelta):
                part, extras = replace(part, extras=extras), None
            yield part
        if extras is not None:
            yield extras

    def end_text(self) -> Iterator[ReplyPart]:
        """End an answer of the model."""
        yield from self._parts(self._marks.finish_text())

    def evidence(self, question: str, reason: str) -> Iterator[SourcesCited]:
        """Cite what a reply without marks has evidently used."""
        if self._indexes or reason == "tool_calls":
            return
        material = {**self._looked_up, **self._material}
        pieces = [(number, f"{found.title}\n{found.content}") for number, found in material.items()]
        if used := used_by("".join(self._said), question, pieces):
            yield self._cite(used)

    def _parts(self, pieces: Iterable[CitedText]) -> Iterator[ReplyPart]:
        for piece in pieces:
            if piece.text:
                if self._said_characters < MOST_EVIDENCE_CHARACTERS:
                    self._said.append(piece.text)
                    self._said_characters += len(piece.text)
                yield TextDelta(piece.text)
            if piece.numbers:
                cited = self._cite(piece.numbers)
                if self._keeps_marks:
                    marks = "".join(f"[{source.index}]" for source in cited.sources)
                    yield TextDelta(piece.space + marks)
                yield cited

    def _cite(self, numbers: Iterable[int]) -> SourcesCited:
        sources = []
        for number in numbers:
            finding = self._finding(number)
            assert finding is not None
            index = self._indexes.setdefault(number, len(self._indexes) + 1)
            sources.append(_source(index, finding, self._url_of))
        return SourcesCited(tuple(sources))

    def _finding(self, number: int) -> Finding | None:
        return self._material.get(number) or self._looked_up.get(number)


def _source(index: int, finding: Finding, url_of: UrlOf) -> Source:
    return Source(
        index=index,
        kind=finding.kind,
        title=finding.title,
        content=finding.content,
        url=url_of(finding),
    )


def _may_answer(request: ChatRequest) -> bool:
    """Return whether a fixed answer suits the request: the user has just asked it in
    text, and no form of the answer is required.
    """
    last = request.messages[-1]
    form = request.options.get("response_format")
    free = form is None or (isinstance(form, Mapping) and form.get("type") == "text")
    return free and last.get("role") == "user" and isinstance(last.get("content"), str)


def _with_material(
    request: ChatRequest, material: Mapping[int, Finding], question: str
) -> ChatRequest:
    """Insert the material before the user's last message."""
    if not material:
        return request
    messages = request.messages
    last = max(at for at, message in enumerate(messages) if message.get("role") == "user")
    quoted = material_message(material, question)
    return replace(request, messages=(*messages[:last], quoted, *messages[last:]))
