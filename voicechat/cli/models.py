"""``voicechat models``: list and download models."""

import argparse
import asyncio
import sys
from pathlib import Path

from voicechat.cli.command import EXIT_OK, EXIT_USAGE, CliCommand, CommandError, add_config_argument
from voicechat.cli.progress import ProgressBar
from voicechat.config import load_config
from voicechat.store.model_catalogue import MODELS_FOLDER, SHIPPED, CatalogueModel, read_catalogue
from voicechat.store.model_download import OnProgress
from voicechat.store.models import ModelFolder, Pulled


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|pull")
    actions.add_parser("list", help="list the models of the catalogue, and which are installed")
    pull = actions.add_parser("pull", help="download a model; an interrupted download is resumed")
    pull.add_argument("name", metavar="NAME", help="a name that 'voicechat models list' shows")
    pull.add_argument("--again", action="store_true", help="download it even if it is installed")
    parser.add_argument(
        "--catalogue",
        type=Path,
        default=SHIPPED,
        metavar="FILE",
        help="your own catalogue, for example of a mirror",
    )
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    models = read_catalogue(arguments.catalogue)
    folder = ModelFolder(load_config(arguments.config).data_dir / MODELS_FOLDER)
    if arguments.action == "list":
        _list(models, folder)
        return EXIT_OK
    model = models.get(arguments.name)
    if model is None:
        raise CommandError(
            f"NAME: there is no model {arguments.name!r}; see 'voicechat models list'", EXIT_USAGE
        )
    if folder.has_model(model.name) and not arguments.again:
        print(f"{folder.folder / model.name} is here already; --again fetches it anew")
        return EXIT_OK
    try:
        pulled = asyncio.run(folder.pull_model(model, _show))
    except KeyboardInterrupt:
        print("\ninterrupted; the next pull goes on from here", file=sys.stderr)
        raise
    _report(model, pulled)
    return EXIT_OK


def _list(models: dict[str, CatalogueModel], folder: ModelFolder) -> None:
    width = max(map(len, models), default=0)
    for model in models.values():
        here = "here" if folder.has_model(model.name) else "    "
        print(f"{here}  {model.name:<{width}}  {model.kind:<24}  {model.languages}")


def _show(name: str) -> OnProgress:
    """Show the progress of one file. A new bar is created when its length is known."""
    bars: dict[int, ProgressBar] = {}
    shown_bytes = 0

    def on_progress(have_bytes: int, total_bytes: int) -> None:
        nonlocal shown_bytes
        if total_bytes not in bars or have_bytes < shown_bytes:
            bars[total_bytes] = ProgressBar(
                f"{name} ({total_bytes >> 20} MB)", total_bytes, sys.stderr
            )
            shown_bytes = 0
        if total_bytes:
            bars[total_bytes].advance(have_bytes - shown_bytes)
        shown_bytes = have_bytes
        if have_bytes == total_bytes:
            bars[total_bytes].clear()

    return on_progress


def _report(model: CatalogueModel, pulled: Pulled) -> None:
    for url in pulled.unchecked:
        print(
            f"not checked: no checksum known of {url}; it is recorded for the next time",
            file=sys.stderr,
        )
    print(pulled.folder)
    if model.kind == "punctuation":
        print(f'to use it: punctuation = "{model.name}" in a section with provider = "sherpa_onnx"')
        return
    section = "tts" if model.kind in ("vits", "kokoro", "kitten", "matcha") else "asr"
    print(f'to use it:\n[{section}.default]\nprovider = "sherpa_onnx"\nmodel = "{model.name}"')


COMMAND = CliCommand(
    summary="list and pull the models of the sherpa_onnx provider",
    example="  voicechat models list\n  voicechat models pull vits-piper-en_US-amy-low",
    add_arguments=_add_arguments,
    run=_run,
)
