"""llama.cpp in process, with a tiny model that it really runs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="needs xllamacpp (pip install 'voicechat[local]')")
pytest.importorskip("gguf", reason="needs gguf (pip install 'voicechat[test]')")

from tests.providers.tiny_gguf import write_tiny_gguf
from voicechat.errors import (
    CONTEXT_TOO_LONG,
    ConfigError,
    FailureKind,
    ProviderError,
    RequestRefusedError,
)
from voicechat.providers.interfaces import ChatRequest, ReplyFinished, TextDelta
from voicechat.providers.llama_cpp import LlamaCppChatModel, open_chat_model
from voicechat.testing.conformance import check_chat_model, leaving_nothing

ANSWER = "Hello, this is a tiny model."


def asked(text: str, *before: Mapping[str, object], **options: object) -> ChatRequest:
    return ChatRequest(messages=(*before, {"role": "user", "content": text}), options=options)


async def answer(model: LlamaCppChatModel, request: ChatRequest) -> tuple[str, ReplyFinished]:
    async with aclosing(model.reply(request)) as parts:
        heard = [part async for part in parts]
    assert isinstance(heard[-1], ReplyFinished)
    text = "".join(part.text for part in heard if isinstance(part, TextDelta))
    return text.strip(), heard[-1]


def cached(finished: ReplyFinished) -> int:
    assert finished.usage is not None
    details = finished.usage["prompt_tokens_details"]
    assert isinstance(details, dict)
    count: int = details["cached_tokens"]
    return count


@asynccontextmanager
async def opened(path: Path, **options: object) -> AsyncIterator[LlamaCppChatModel]:
    model = open_chat_model(model=str(path), **options)  # type: ignore[arg-type]
    async with asyncio.timeout(120):
        await model.start()
        try:
            yield model
        finally:
            await model.aclose()


# --- the file -------------------------------------------------------------------------


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"<html>")
    with pytest.raises(ConfigError, match=r"model\.gguf' is no GGUF file"):
        open_chat_model(model=str(tmp_path / "model.gguf"))


def test_a_folder_must_hold_one_file_or_the_parts_of_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold one .gguf file; it has none"):  # noqa: RUF043
        open_chat_model(model=str(tmp_path))
    for part in (1, 2):
        (tmp_path / f"large-{part:05}-of-00002.gguf").write_bytes(b"GGUF")
    assert open_chat_model(model=str(tmp_path)) is not None
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"it has small\.gguf, large-00001-of-00002\.gguf"):
        open_chat_model(model=str(tmp_path))


# --- the process ----------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.real_time
async def test_it_keeps_the_contract(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    async with leaving_nothing(), opened(path) as model:
        await check_chat_model(model)


@pytest.mark.long
@pytest.mark.real_time
async def test_a_conversation_computes_only_what_is_new(tmp_path: Path) -> None:
    async with opened(write_tiny_gguf(tmp_path / "tiny.gguf")) as model:
        text, first = await answer(model, asked("What are you? " * 10))
        assert text == ANSWER
        assert first.finish_reason == "stop"
        # Others talk in between.
        for other in range(6):
            await answer(model, asked(f"{other} is my number " * 10))
        history = (
            {"role": "user", "content": "What are you? " * 10},
            {"role": "assistant", "content": text},
        )
        _, second = await answer(model, asked("And who?", *history))
        assert first.prompt_tokens is not None
        assert cached(second) >= first.prompt_tokens - 4


@pytest.mark.long
@pytest.mark.real_time
async def test_instructions_are_computed_before_the_first_conversation(tmp_path: Path) -> None:
    both = ("You talk with people. " * 8, "Others are talking to you. " * 8)
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    async with opened(path, instructions=both) as model:
        for instructions in both:
            system = {"role": "system", "content": instructions}
            _, finished = await answer(model, asked("Hello", system))
            assert finished.prompt_tokens is not None
            assert cached(finished) >= finished.prompt_tokens * 3 // 4


@pytest.mark.long
@pytest.mark.real_time
async def test_a_prompt_is_prepared_while_the_user_speaks(tmp_path: Path) -> None:
    said = "Once upon a time there was a girl. " * 4
    async with opened(write_tiny_gguf(tmp_path / "tiny.gguf")) as model:
        await model.prepare(asked(said))
        _, finished = await answer(model, asked(said + "What was her name?"))
        assert finished.prompt_tokens is not None
        unheard = finished.prompt_tokens - cached(finished)
        assert unheard < finished.prompt_tokens // 4


@pytest.mark.long
@pytest.mark.real_time
async def test_nothing_is_prepared_while_the_model_answers(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "endless.gguf", endless=True)
    async with (
        opened(path, max_tokens=50_000) as model,
        aclosing(model.reply(asked("Go on.", dry_multiplier=0))) as parts,
    ):
        await anext(parts)
        said = "Somebody else is speaking now. " * 8
        await model.prepare(asked(said))
        assert model.process.open_jobs == 1
        _, finished = await answer(model, asked(said))
        assert cached(finished) < 8, "nothing was computed beforehand"


@pytest.mark.long
@pytest.mark.real_time
async def test_a_cancelled_reply_stops_and_a_long_one_is_bounded(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "endless.gguf", endless=True)
    async with opened(path, replies=1, max_tokens=50) as model:
        for _ in range(3):
            async with aclosing(
                model.reply(asked("Go on.", max_tokens=100_000, dry_multiplier=0))
            ) as parts:
                async for part in parts:
                    if isinstance(part, TextDelta) and "and" in part.text:
                        break
            # The only place is free again, and the model works on nothing else.
        text, finished = await answer(model, asked("Go on.", dry_multiplier=0))
        assert finished.finish_reason == "length"
        assert finished.completion_tokens == 50
        assert text.startswith(ANSWER)


@pytest.mark.long
@pytest.mark.real_time
async def test_a_conversation_that_is_too_long_is_refused_as_such(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    async with opened(path, context=512, instructions=("word " * 500,)) as model:
        with pytest.raises(RequestRefusedError) as failure:
            await answer(model, asked("word " * 500))
        assert failure.value.code == CONTEXT_TOO_LONG


@pytest.mark.long
@pytest.mark.real_time
async def test_a_lost_process_is_replaced(tmp_path: Path) -> None:
    async with opened(write_tiny_gguf(tmp_path / "tiny.gguf")) as model:
        assert (await answer(model, asked("Hello")))[0] == ANSWER
        (before,) = model.process.pids
        os.kill(before, signal.SIGKILL)
        text = ""
        for _ in range(20):
            try:
                text, _ = await answer(model, asked("Hello"))
            except ProviderError as error:
                # What was under way, or came before the loss was noticed.
                if error.kind is not FailureKind.CONNECTIVITY:
                    raise
            else:
                break
        assert text == ANSWER
        assert model.process.pids != (before,)


@pytest.mark.long
@pytest.mark.real_time
async def test_a_file_that_is_cut_off_fails_the_start(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:10_000])
    model = open_chat_model(model=str(path))
    with pytest.raises(ProviderError) as failure:
        await model.start()
    assert failure.value.kind is FailureKind.BROKEN
    await model.aclose()
