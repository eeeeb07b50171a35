"""``voicechat usage``: prints what sessions have used, and what it cost."""

import argparse
import re

from voicechat.cli.command import EXIT_OK, CliCommand, add_config_argument
from voicechat.cli.records import open_records
from voicechat.config import load_config
from voicechat.records.usage import GROUPS, Prices, UsageIndex, UsageSum, total

_TITLES = ("sessions", "min", "heard min", "spoken min", "prompt tok", "reply tok", "characters")


def _day(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-01-31")
    return text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=tuple(GROUPS), default="day")
    parser.add_argument("--from", dest="from_day", type=_day, metavar="DAY")
    parser.add_argument("--to", dest="to_day", type=_day, metavar="DAY")
    parser.add_argument("--project", help="only this project")
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    prices = Prices(**dict(config.prices))
    database = open_records(config)
    try:
        sums = UsageIndex(database).sums(
            arguments.project,
            arguments.by,
            from_day=arguments.from_day or "",
            to_day=arguments.to_day or "",
        )
    finally:
        database.close()
    everything = UsageSum("total", sum(each.sessions for each in sums), total(sums))
    rows: list[tuple[str, ...]] = [(arguments.by, *_TITLES, prices.currency)]
    rows += [_row(each, prices) for each in (*sums, everything)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        print("  ".join((first.ljust(widths[0]), *cells)))
    return EXIT_OK


def _row(each: UsageSum, prices: Prices) -> tuple[str, ...]:
    used = each.used
    minutes = (f"{ms / 60_000:.1f}" for ms in (used.length_ms, used.heard_ms, used.spoken_ms))
    counts = (used.prompt_tokens, used.completion_tokens, used.characters)
    cost = f"{prices.cost_of(used):.4f}"
    return (each.group, str(each.sessions), *minutes, *map(str, counts), cost)


COMMAND = CliCommand(
    "print what sessions have used",
    "  voicechat usage --by agent --from 2026-01-01",
    _add_arguments,
    _run,
)
