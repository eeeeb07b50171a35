"""``voicechat models``: list, pull, verify and remove models."""

import argparse
import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from voicechat.cli.command import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    CliCommand,
    CommandError,
    add_config_argument,
)
from voicechat.cli.progress import ProgressBar
from voicechat.config import Config, load_config
from voicechat.config.local_models import INSTALL, find_local_models
from voicechat.errors import VoiceChatError
from voicechat.store.model_catalogue import (
    MODELS_FOLDER,
    SHIPPED,
    Catalogue,
    CatalogueFile,
    CatalogueModel,
    read_catalogue,
)
from voicechat.store.model_download import DownloadLimits, OnProgress
from voicechat.store.model_files import ModelFileSources
from voicechat.store.models import ModelFolder, Pulled
from voicechat.store.package_registries import find_registries


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|pull|verify|remove")
    actions.add_parser(
        "list", help="list bundles and models with their sizes and licences, and which are here"
    )
    pull = actions.add_parser(
        "pull", help="download a bundle or a model; an interrupted download is resumed"
    )
    pull.add_argument("name", metavar="NAME", help="a name that 'voicechat models list' shows")
    pull.add_argument("--again", action="store_true", help="download an archive even if it is here")
    verify = actions.add_parser("verify", help="compare the files that are here with their sha256")
    verify.add_argument("names", metavar="NAME", nargs="*", help="default: all that are here")
    remove = actions.add_parser("remove", help="delete a model, or all models of a bundle")
    remove.add_argument("name", metavar="NAME", help="a name that 'voicechat models list' shows")
    parser.add_argument(
        "--catalogue",
        type=Path,
        default=SHIPPED,
        metavar="FILE",
        help="your own catalogue, for example of a mirror",
    )
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    catalogue = read_catalogue(arguments.catalogue)
    config = load_config(arguments.config)
    folder = ModelFolder(config.data_dir / MODELS_FOLDER)
    match arguments.action:
        case "list":
            _list(catalogue, folder)
        case "verify":
            return _verify(catalogue, folder, arguments.names)
        case "remove":
            _remove(catalogue, folder, arguments.name)
        case _:
            try:
                asyncio.run(_pull(catalogue, folder, config, arguments))
            except KeyboardInterrupt:
                print("\ninterrupted; the next pull goes on from here", file=sys.stderr)
                raise
    return EXIT_OK


def _models_of(catalogue: Catalogue, name: str) -> list[CatalogueModel]:
    models = catalogue.models_of(name)
    if models is None:
        raise CommandError(
            f"NAME: there is no model {name!r}; see 'voicechat models list'", EXIT_USAGE
        )
    return models


def _list(catalogue: Catalogue, folder: ModelFolder) -> None:
    width = max(map(len, (*catalogue.models, *catalogue.bundles)), default=0)

    def show(name: str, here: bool, size_bytes: int, *details: str) -> None:
        mark = "here" if here else "    "
        told = "  ".join(filter(None, details))
        print(f"{mark}  {name:<{width}}  {_megabytes(size_bytes):>8}  {told}".rstrip())

    for bundle in catalogue.bundles.values():
        models = [catalogue.models[name] for name in bundle.models]
        here = all(map(folder.is_complete, models))
        show(bundle.name, here, sum(model.bytes for model in models), bundle.about)
    if catalogue.bundles:
        print()
    for model in catalogue.models.values():
        unchecked = "" if model.files or model.sha256 else "no checksum is published"
        details = (model.kind, model.languages, model.licence, unchecked)
        show(model.name, folder.is_complete(model), model.bytes, *details)


async def _pull(
    catalogue: Catalogue, folder: ModelFolder, config: Config, arguments: argparse.Namespace
) -> None:
    """Pull one model or the models of a bundle, what is missing of them."""
    models, name = _models_of(catalogue, arguments.name), arguments.name
    limits = DownloadLimits()
    with folder.locked(lambda: _tell(f"another pull is at work in {folder.folder}; waiting")):
        wanted = [model for model in models if arguments.again or not _is_here(folder, model, name)]
        if not wanted:
            return
        _announce(wanted, folder)
        folder.check_room(wanted, limits)
        sources = ModelFileSources(
            catalogue.packages, await find_registries(config.registries), limits, _show
        )
        for model in wanted:
            if model.files:
                await _pull_files(model, folder, sources)
            else:
                _report_archive(await folder.pull_model(model, _show, limits))
    _report(name, models, config, is_bundle=name in catalogue.bundles)


def _is_here(folder: ModelFolder, model: CatalogueModel, name: str) -> bool:
    """Return whether nothing of a model needs to be pulled, and say so."""
    if not folder.has_model(model.name):
        return False
    place = folder.folder / model.name
    if not model.files:
        print(f"{place} is here already; --again fetches it anew")
        return True
    wrong = folder.wrong_files(model)
    for line in wrong:
        _tell(f"{place}: {line}")
    if not wrong:
        print(f"{place} is here already, and as published")
    return not wrong


def _announce(models: Sequence[CatalogueModel], folder: ModelFolder) -> None:
    """Show sizes, licences and publishers before anything is fetched."""
    for model in models:
        size = _megabytes(model.bytes) if model.files else "size unknown"
        print(f"{model.name}: {size}, {model.licence or 'licence unknown'}  {model.home}".rstrip())
    missing_bytes = sum(map(folder.missing_bytes, models))
    if missing_bytes:
        folder.folder.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(folder.folder).free
        print(
            f"{_megabytes(missing_bytes)} to fetch; {_megabytes(free_bytes)} are free in "
            f"{folder.folder}",
            flush=True,
        )


def _verify(catalogue: Catalogue, folder: ModelFolder, names: Sequence[str]) -> int:
    models = {model.name: model for name in names for model in _models_of(catalogue, name)}
    if not names:
        models = {
            model.name: model for model in catalogue.models.values() if folder.has_model(model.name)
        }
        if not models:
            print(f"no models are in {folder.folder}")
    failed = 0
    for model in models.values():
        try:
            wrong = folder.wrong_files(model)
        except VoiceChatError as error:
            wrong = [str(error)]
        for line in wrong:
            print(f"FAIL {model.name}: {line}")
        if not wrong:
            print(f"ok   {model.name}", flush=True)
        failed += bool(wrong)
    if failed:
        print("'voicechat models pull NAME' fetches anew what is missing or wrong")
    return EXIT_FAILED if failed else EXIT_OK


def _remove(catalogue: Catalogue, folder: ModelFolder, name: str) -> None:
    models = _models_of(catalogue, name)
    with folder.locked(lambda: _tell(f"another pull is at work in {folder.folder}; waiting")):
        freed_bytes = sum(folder.remove(model.name) for model in models)
    print(f"{_megabytes(freed_bytes)} freed" if freed_bytes else f"{name} is not here")


def _show(name: str) -> OnProgress:
    """Show the progress of one file. A new bar is created when its length is known."""
    bars: dict[int, ProgressBar] = {}
    shown_bytes = 0

    def on_progress(have_bytes: int, total_bytes: int) -> None:
        nonlocal shown_bytes
        if total_bytes not in bars or have_bytes < shown_bytes:
            bars[total_bytes] = ProgressBar(
                f"{name} ({_megabytes(total_bytes)})", total_bytes, sys.stderr
            )
            shown_bytes = 0
        if total_bytes:
            bars[total_bytes].advance(have_bytes - shown_bytes)
        shown_bytes = have_bytes
        if have_bytes == total_bytes:
            bars[total_bytes].clear()

    return on_progress


async def _pull_files(
    model: CatalogueModel, folder: ModelFolder, sources: ModelFileSources
) -> None:
    origins: dict[str, int] = {}

    def on_file(_file: CatalogueFile, source: str) -> None:
        origin = urlsplit(source).hostname or source.partition(":")[0]
        origins[origin] = origins.get(origin, 0) + 1

    place = await folder.pull_files(model, sources, on_file)
    told = ", ".join(f"{count} from {origin}" for origin, count in origins.items())
    print(f"{place}: as published ({told or 'all were here'})", flush=True)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _megabytes(size_bytes: int) -> str:
    if not size_bytes:
        return ""
    return f"{size_bytes / 1e6:,.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:,.0f} kB"


def _report_archive(pulled: Pulled) -> None:
    for url in pulled.unchecked:
        _tell(f"not checked: no checksum known of {url}; it is recorded for the next time")
    print(pulled.folder)


def _report(
    name: str, models: Sequence[CatalogueModel], config: Config, *, is_bundle: bool
) -> None:
    """Say how to use what was pulled, and what is missing for it."""
    unused = find_local_models(config.data_dir / MODELS_FOLDER).unused
    if any(model.name in unused for model in models):
        print(f"what runs it is not installed yet: {INSTALL}")
    if is_bundle:
        rest = f", where {config.file} says nothing else" if config.file else ""
        print(f"to use it: voicechat serve{rest}")
        return
    (model,) = models
    section = _section(model)
    if model.kind == "punctuation":
        print(f'to use it: punctuation = "{name}" in a section with provider = "sherpa_onnx"')
    elif model.provider == "smart_turn":
        print("to use it: voicechat serve, if [hands_free] names no turn_model")
    elif section:
        print(f'to use it:\n[{section}.default]\nprovider = "{model.provider}"\nmodel = "{name}"')


def _section(model: CatalogueModel) -> str | None:
    """Return the kind of service that a model is for; None if its kind does not say."""
    if model.provider == "sherpa_onnx":
        return "tts" if model.kind in ("vits", "kokoro", "kitten", "matcha") else "asr"
    return {"recognition": "asr", "speech": "tts", "chat": "llm"}.get(model.kind)


COMMAND = CliCommand(
    summary="list, pull, verify and remove local models",
    example="  voicechat models list\n  voicechat models pull local\n"
    "  voicechat models pull vits-piper-en_US-amy-low",
    add_arguments=_add_arguments,
    run=_run,
)
