"""``voicechat knowledge``: add, list and remove documents of a running server's
knowledge base, and ask it.
"""

import argparse
import asyncio
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from voicechat.cli.command import EXIT_OK, CliCommand, CommandError, add_config_argument
from voicechat.cli.progress import ProgressBar
from voicechat.client import ApiError, FoundPassage, KnowledgeApi
from voicechat.config import load_config
from voicechat.errors import Status
from voicechat.names import DEFAULT
from voicechat.store.local_key import local_key

URL = "http://127.0.0.1:8000"
SHOWN_CHARACTERS = 300
_PERCENT = 100


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=URL, help=f"the running server (default: {URL})")
    parser.add_argument(
        "--key", help="the server's API key (default: VOICECHAT_API_KEY, else this machine's own)"
    )
    parser.add_argument(
        "--base",
        default="default",
        metavar="NAME",
        help="an agent, or a knowledge base that an agent names (default: the agent 'default')",
    )
    add_config_argument(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|remove|ask")
    add = actions.add_parser("add", help="upload documents, and wait until they are read")
    add.add_argument("files", nargs="+", type=Path, metavar="FILE", help="pdf, docx, txt, ...")
    actions.add_parser("list", help="list the documents")
    remove = actions.add_parser("remove", help="delete documents")
    remove.add_argument("names", nargs="+", metavar="NAME", help="an id, or a title")
    ask = actions.add_parser("ask", help="ask a question")
    ask.add_argument("question")
    ask.add_argument(
        "--found", action="store_true", help="show the passages that are found, ask no model"
    )


def _run(arguments: argparse.Namespace) -> int:
    asyncio.run(_perform(arguments))
    return EXIT_OK


async def _perform(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config)
    key = arguments.key or config.api_key or local_key(config.data_dir)
    async with KnowledgeApi(arguments.url, key=key, service=arguments.base) as knowledge:
        match arguments.action:
            case "add":
                await _add(knowledge, arguments.files)
            case "list":
                await _list(knowledge)
            case "remove":
                await _remove(knowledge, arguments.names)
            case _:
                await _ask(knowledge, arguments.question, found=arguments.found)


async def _add(knowledge: KnowledgeApi, paths: Sequence[Path]) -> None:
    """Upload documents one after the other; a broken one does not keep the others
    out.
    """
    failed = 0
    for path in paths:
        sending = ProgressBar(f"sending {path.name}", path.stat().st_size, sys.stderr)
        try:
            file = await knowledge.upload(path, sending.advance)
        finally:
            sending.clear()
        reading = ProgressBar(f"reading {path.name}", _PERCENT, sys.stderr)
        done = 0

        def show(progress: float, reading: ProgressBar = reading) -> None:
            nonlocal done
            reading.advance(int(progress * _PERCENT) - done)
            done = max(done, int(progress * _PERCENT))

        try:
            file = await knowledge.wait_until_read(file, show)
        finally:
            reading.clear()
        if file.status == "ERROR":
            failed += 1
            print(f"{path.name}: {file.error}", file=sys.stderr)
        else:
            print(f"{file.id}  {file.title}  {file.passages} passages")
    if failed:
        raise CommandError(f"{failed} of {len(paths)} documents cannot be used")


async def _list(knowledge: KnowledgeApi) -> None:
    for file in await knowledge.files():
        about = f"{file.passages} passages" if file.status == "ENABLED" else file.error
        if file.status == "UPLOADING":
            about = f"{file.progress:.0%}"
        words = (file.id, file.created_at[:10], file.status, file.title, about)
        print("  ".join(filter(None, words)))


async def _remove(knowledge: KnowledgeApi, names: Sequence[str]) -> None:
    files = await knowledge.files()
    for name in names:
        meant = [file for file in files if name in (file.id, file.title)]
        if not meant:
            raise CommandError(
                f"there is no document {name!r}; 'voicechat knowledge list' shows them"
            )
        if len(meant) > 1:
            ids = ", ".join(file.id for file in meant)
            raise CommandError(f"{len(meant)} documents are called {name!r}; say which: {ids}")
        await knowledge.remove(meant[0].id)
        print(f"removed {meant[0].title}")


async def _ask(knowledge: KnowledgeApi, question: str, *, found: bool) -> None:
    if found:
        passages = await knowledge.search(question)
        if not passages:
            raise CommandError("nothing was found")
        _show(passages)
        return
    try:
        answer = await knowledge.ask(question)
    except ApiError as error:
        if error.status != Status.NOT_FOUND:
            raise
        # The base is not an agent's own: the default agent answers from it.
        answer = await knowledge.ask(question, model=DEFAULT)
    print(answer.content)
    _show(answer.sources)


def _show(passages: Sequence[FoundPassage]) -> None:
    for number, passage in enumerate(passages, 1):
        page = "" if passage.page is None else f", page {passage.page}"
        print(f"\n[{number}] {' › '.join((passage.title, *passage.headings))}{page}")
        shown = " ".join(passage.content.split())
        print(
            textwrap.indent(textwrap.shorten(shown, SHOWN_CHARACTERS, placeholder=" ..."), "    ")
        )


COMMAND = CliCommand(
    summary="documents that a running server's agents answer from",
    example="  voicechat knowledge --base hotel add handbook.pdf prices.xlsx\n"
    "  voicechat knowledge --base hotel ask 'When is breakfast?'\n"
    "  voicechat knowledge --base hotel ask --found 'When is breakfast?'",
    add_arguments=_add_arguments,
    run=_run,
)
