"""A chat model in a GGUF file, computed by llama.cpp (xllamacpp) on this machine.

The packages are an extra: ``pip install 'voicechat[local]'``. See
``docs/providers/llama_cpp.md``.

The child process runs llama.cpp's own server on a loopback port of its choice, with a
key that only this process learns, and `OpenAIChatModel` talks to it. Therefore
llama.cpp itself handles the file's chat template, the grammar of tool calls, the prompt
cache and the batching of several replies, and closing the connection stops the reply
after the current token.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field

from voicechat.errors import ConfigError, FailureKind, ProviderError, RequestRefusedError
from voicechat.processes.channel import Channel
from voicechat.providers.interfaces import ChatRequest, Provider, ReplyPart
from voicechat.providers.model_process import (
    ModelProcess,
    default_threads,
    model_path,
    need_package,
)
from voicechat.providers.openai_chat import OpenAIChatModel
from voicechat.providers.openai_http import READ_TIMEOUT_MS, OpenAIEndpoint
from voicechat.providers.thinking import ThinkingForm
from voicechat.providers.written_calls import functions_of, read_calls, with_grammar

PROVIDER = "llama_cpp"

CONTEXT_TOKENS = 8_192
MAX_TOKENS = 512
"""Bound of one reply unless the request sets another: three minutes of speech. A small
model may never end by itself.
"""
CACHE_MIB = 512
NICENESS = 10
"""Above that of recognition and synthesis: the model writes text several times as fast
as it is spoken, while users wait for recognition before it and for synthesis after it.
"""
_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaOptions:
    """The options of the child process."""

    model: str
    name: str
    context: int
    replies: int
    max_tokens: int
    cache_mib: int
    threads: int
    niceness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """The address of the child's server."""

    base_url: str
    api_key: str


class LlamaCppChatModel(Provider):
    """A `ChatModel` on one model in a child process that all sessions share."""

    def __init__(
        self,
        process: ModelProcess,
        name: str,
        thinking: ThinkingForm | None,
        instructions: Sequence[str] = (),
    ) -> None:
        """``name``: the model's name in requests. ``thinking``: the form of the
        template's option for thinking, as for `OpenAIChatModel`. ``instructions``: see
        `start`.
        """
        self._process = process
        self._name = name
        self._thinking = thinking
        self._instructions = instructions
        self._address: ServerAddress | None = None
        self._model: OpenAIChatModel | None = None
        self._closed = False

    @property
    def process(self) -> ModelProcess:
        """The child with the model, for health checks."""
        return self._process

    @property
    def waiting_streams(self) -> int:
        """How many replies wait for a place, for admission control."""
        return self._process.waiting_jobs

    @property
    def patience_s(self) -> float:
        """As `ModelProcess.patience_s`."""
        return self._process.patience_s

    async def start(self) -> None:
        """Load the model, and process the instructions with which conversations begin,
        so that the first answer waits only for the rest of its prompt.

        Raises `ProviderError` (BROKEN) if the model cannot be loaded, and the errors of
        `reply`, except for instructions that are too long.
        """
        await self._process.start()
        for instructions in self._instructions:
            messages = (
                {"role": "system", "content": instructions},
                {"role": "user", "content": "1"},
            )
            # Instructions that do not fit are refused when a conversation begins with
            # them.
            with suppress(RequestRefusedError):
                await self.prepare(ChatRequest(messages=messages))

    async def prepare(self, request: ChatRequest) -> None:
        """Process the prompt, unless the model is in use: others wait for that. Raises
        as `reply`. Cancelling stops the model after the current batch of tokens.
        """
        if self._process.open_jobs:
            return
        least = replace(request, options={**request.options, "max_tokens": 1})
        async with aclosing(self.reply(least)) as parts:
            async for _ in parts:
                pass

    async def aclose(self) -> None:
        """End the child process; replies in progress fail."""
        self._closed = True
        if self._model is not None:
            await self._model.aclose()
        await self._process.aclose()

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the answer. Cancelling stops the model after the current token. Tool
        calls that the model writes as text are converted to calls.

        Raises `ProviderError` as `OpenAIChatModel.reply`, and RATE_LIMIT when too many
        replies wait, CONNECTIVITY when the child is lost.
        """
        async with self._process.job() as channel:
            model = await self._model_of(channel)
            functions = frozenset(functions_of(request.options))
            asked = replace(request, options=with_grammar(request.options))
            async with aclosing(model.reply(asked)) as parts:
                async for part in read_calls(parts, functions) if functions else parts:
                    yield part

    async def _model_of(self, channel: Channel) -> OpenAIChatModel:
        """Return the client of the child's server. A replaced child has another
        address.
        """
        await channel.send(b"address")
        address = ServerAddress(**orjson.loads(await anext(channel)))
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        if self._model is None or address != self._address:
            before, self._address = self._model, address
            endpoint = OpenAIEndpoint(
                address.base_url, address.api_key, read_timeout_ms=READ_TIMEOUT_MS
            )
            self._model = OpenAIChatModel(
                endpoint,
                self._name,
                include_usage=True,
                starts_thinking=False,
                thinking=self._thinking,
            )
            if before is not None:
                await before.aclose()
        return self._model


def open_chat_model(  # noqa: PLR0913 - the keys of a section
    *,
    model: str,
    models_dir: str = "",
    context: Annotated[int, Field(ge=512, le=1_000_000)] = CONTEXT_TOKENS,
    replies: Annotated[int, Field(ge=1, le=64)] = 4,
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = MAX_TOKENS,
    cache_mib: Annotated[int, Field(ge=0, le=65_536)] = CACHE_MIB,
    instructions: Annotated[tuple[str, ...], Field(max_length=64)] = (),
    thinking: ThinkingForm | None = None,
    threads: Annotated[int, Field(ge=1, le=64)] | None = None,
    wait_ms: Annotated[int, Field(ge=0, le=60_000)] = 10_000,
    niceness: Annotated[int, Field(ge=0, le=19)] = NICENESS,
) -> LlamaCppChatModel:
    """Open the chat model; `start` or the first reply loads it.

    ``model``: a GGUF file with a chat template, the folder that holds it, or its name
    in ``models_dir``. ``context``: tokens that all replies in progress share.
    ``replies``: concurrent replies; another one waits for ``wait_ms``. ``max_tokens``:
    of a reply, unless the request sets another. ``cache_mib``: memory for the prompts
    of conversations that are not being answered, so that only the new part of their
    next prompt is computed. ``instructions``: system messages of conversations,
    processed at the start; unset: those of the agents. ``thinking``: the form of the
    template's option for thinking. ``threads``: unset: the cores, at most 4.
    ``niceness``: of the child process. Raises `ConfigError` naming the key, the value
    and what to do.
    """
    need_package("xllamacpp", PROVIDER)
    path = _gguf_file(model_path(model, models_dir), model)
    options = LlamaOptions(
        model=str(path),
        name=path.stem,
        context=context,
        replies=replies,
        max_tokens=max_tokens,
        cache_mib=cache_mib,
        threads=threads or default_threads(),
        niceness=niceness,
    )
    process = ModelProcess(
        PROVIDER,
        "voicechat.providers.llama_cpp_worker",
        options,
        jobs=replies,
        wait_ms=wait_ms,
        model=options.model,
    )
    return LlamaCppChatModel(process, path.stem, thinking, instructions)


def _gguf_file(path: Path, model: str) -> Path:
    if path.is_dir():
        # llama.cpp finds the other parts of a split file by the first part's name.
        later = "-[0-9][0-9][0-9][0-9][0-9]-of-*.gguf"
        files = [file for file in sorted(path.glob("*.gguf")) if not file.match("*" + later)]
        files += sorted(path.glob("*-00001-of-*.gguf"))
        if len(files) != 1:
            held = ", ".join(file.name for file in files) or "none"
            raise ConfigError(
                f"model: the folder {model!r} must hold one .gguf file; it has {held}"
            )
        path = files[0]
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ConfigError(f"model: {str(path)!r} cannot be read: {error}") from error
    if magic != _MAGIC:
        raise ConfigError(f"model: {str(path)!r} is no GGUF file")
    return path
