"""``voicechat doctor``: checks everything that is configured and explains failures."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from voicechat.cli.checks import (
    PROBES,
    NotTriedError,
    check_agent,
    check_cluster,
    check_codecs,
    check_data_directory,
    check_dialect,
    check_embedder,
    check_keys,
    check_knowledge,
    check_models,
    check_port,
    check_resumption,
    check_tool,
    check_voice_detection,
)
from voicechat.cli.command import EXIT_FAILED, EXIT_OK, CliCommand, add_config_argument
from voicechat.cli.started_service import NotStartedError
from voicechat.config import Config, ServiceConfig, ServiceKind, fallback_orders, load_config
from voicechat.errors import VoiceChatError
from voicechat.session.agent import Agent

_KINDS: tuple[ServiceKind, ...] = ("tts", "asr", "llm")
DEADLINE_S = 60.0
"""The timeout of one check. Loading a large model from a slow disk takes long."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The outcome of one check. ``detail`` describes what works, or the problem and its
    remedy.
    """

    name: str
    works: bool
    detail: str
    starts: bool = True
    """False for a service that fails to start."""
    tried: bool = True
    """False when something else that the check needs does not work."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    return asyncio.run(_examine(arguments.config))


async def _examine(path: Path | None) -> int:
    try:
        config = load_config(path)
    except VoiceChatError as error:
        _show(Diagnosis("configuration", False, str(error)))
        return EXIT_FAILED
    _show(
        Diagnosis(
            "configuration",
            True,
            str(config.file or "no file: pulled models, embedded services, the environment"),
        )
    )
    failed = 0
    async for finding in examine(config):
        _show(finding)
        failed += finding.tried and not finding.works
    print(f"{failed} of the checks failed" if failed else "everything that is configured works")
    return EXIT_FAILED if failed else EXIT_OK


async def examine(config: Config) -> AsyncIterator[Diagnosis]:
    """Run all checks one after the other, each within 60 s, and yield the findings."""
    yield await _find("data directory", partial(check_data_directory, config))
    yield await _find("keys", partial(check_keys, config))
    yield await _find("port", partial(check_port, config))
    yield await _find("codecs", check_codecs)
    yield await _find("models", partial(check_models, config))
    yield await _find("hands_free", partial(check_voice_detection, config))
    for kind in _KINDS:
        services: Mapping[str, ServiceConfig] = getattr(config, kind)
        found: dict[str, Diagnosis] = {}
        for name, service in services.items():
            finding = await _find(
                f"{kind}.{name} ({service.provider})", partial(PROBES[kind], config, name)
            )
            if not finding.starts and not service.fallback:
                finding = replace(
                    finding, detail=f"{finding.detail}; nor does the server, without a fallback"
                )
            found[name] = finding
            yield finding
        for order in fallback_orders(kind, services).values():
            if len(order) > 1:
                yield _chain(kind, order, found)
    for name, embedder in config.media_services.get("embedders", {}).items():
        yield await _find(
            f"embedders.{name} ({embedder.provider})", partial(check_embedder, config, name)
        )
    yield await _find("knowledge", partial(check_knowledge, config))
    yield await _find("resumption", partial(check_resumption, config))
    yield await _find("cluster", partial(check_cluster, config))
    for name, tool in config.tools.items():
        subject = f"tools.{name} ({tool.function})" if tool.function else f"tools.{name}"
        yield await _find(subject, partial(check_tool, config, name))
    for name in config.dialects:
        yield await _find(f"dialects.{name}", partial(check_dialect, config, name))
    for name, agent in config.agents.agents.items():
        if agent != Agent():
            yield await _find(f"agents.{name}", partial(check_agent, config, name))


def _chain(kind: ServiceKind, order: Sequence[str], found: Mapping[str, Diagnosis]) -> Diagnosis:
    """Report which service of a fallback chain answers."""
    health = ", ".join(f"{name} {_health(found[name])}" for name in order)
    answering = next((name for name in order if found[name].works), None)
    verdict = f"{kind}.{answering} answers" if answering else "nobody answers"
    if answering and not found[order[0]].starts:
        verdict += f", the server starts without {kind}.{order[0]}"
    return Diagnosis(
        f"{kind}: {' -> '.join(order)}", answering is not None, f"{verdict} ({health})"
    )


def _health(finding: Diagnosis) -> str:
    if finding.works or not finding.tried:
        return "works" if finding.works else "was not tried"
    return "does not work" if finding.starts else "does not start"


async def _find(name: str, check: Callable[[], Awaitable[str]]) -> Diagnosis:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return Diagnosis(name, True, await check())
    except TimeoutError:
        return Diagnosis(name, False, f"no answer within {DEADLINE_S:g} s")
    except NotTriedError as error:
        return Diagnosis(name, False, str(error), tried=False)
    except VoiceChatError as error:
        starts = not isinstance(error, NotStartedError)
        return Diagnosis(name, False, str(error).removeprefix(f"{name.split()[0]}: "), starts)
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything: report it
        return Diagnosis(
            name, False, f"it failed in an unexpected way: {type(error).__name__}: {error}"
        )


def _show(finding: Diagnosis) -> None:
    mark = "ok  " if finding.works else "FAIL" if finding.tried else "--  "
    print(f"{mark} {finding.name}: {finding.detail}", flush=True)


COMMAND = CliCommand(
    summary="check configuration, providers, codecs and port, and say what is missing",
    example="  voicechat doctor\n"
    "  voicechat doctor --config voicechat.toml && voicechat serve --config voicechat.toml",
    add_arguments=_add_arguments,
    run=_run,
)
