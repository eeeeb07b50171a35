"""``voicechat records``: lists, shows, exports and deletes the records of this
machine.
"""

import argparse
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from voicechat.cli.command import EXIT_OK, CliCommand, CommandError, add_config_argument
from voicechat.config import Config, load_config
from voicechat.records.database import RecordDatabase, open_database
from voicechat.records.finishing import erase, read_record
from voicechat.records.folder import AUDIO, EVENTS, ID, record_folder
from voicechat.records.index import RecordIndex, RecordQuery, RecordRow, RecordState
from voicechat.server.auth import DEFAULT_PROJECT, holder_of_user

LISTED = 50
_ERASED_AT_ONCE = 100


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="list|show|export|delete|erase"
    )
    listing = actions.add_parser("list", help="list the newest records")
    listing.add_argument("words", nargs="*", help="words that were said")
    for name, what in (
        ("show", "print what was said, as JSON"),
        ("export", "copy the events and the audio into a folder"),
        ("delete", "delete one record"),
    ):
        action = actions.add_parser(name, help=what)
        action.add_argument("id", help="the id that 'voicechat records list' shows")
        if name == "export":
            action.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    erasing = actions.add_parser("erase", help="delete all records of a person")
    who = erasing.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", help="the user with whom tokens were made")
    who.add_argument("--caller", help="the number that called")
    who.add_argument("--device", help="the id of the device")
    for action in actions.choices.values():
        action.add_argument("--project", default=DEFAULT_PROJECT)
        add_config_argument(action)


def folder_of(config: Config) -> Path:
    """Return the folder of all records."""
    return Path(config.records.folder) if config.records.folder else config.data_dir / "records"


def open_records(config: Config) -> RecordDatabase:
    """Open the database of the records. Raises ``CommandError`` if there is none."""
    root = folder_of(config)
    if not config.records.database_url and not (root / "index.sqlite").exists():
        raise CommandError(f"{root}: nothing has been recorded or counted there")
    database = open_database(config.records.database_url, root)
    database.open()
    return database


def record_path(name: str, config_file: Path | None) -> Path:
    """Return the folder of the record with that id, or else the path ``name``. Raises
    ``CommandError``.
    """
    if not ID.fullmatch(name):
        return Path(name)
    found = list(folder_of(load_config(config_file)).glob(f"*/{name}"))
    if not found:
        raise CommandError(f"{name}: there is no such record on this machine")
    return found[0]


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    database, root = open_records(config), folder_of(config)
    index = RecordIndex(database)
    try:
        match arguments.action:
            case "list":
                query = RecordQuery(words=" ".join(arguments.words))
                for row in index.search(arguments.project, query, limit=LISTED):
                    print(_shown(row))
            case "erase":
                _erase_person(root, index, arguments)
            case _:
                _act(root, index, arguments)
    finally:
        database.close()
    return EXIT_OK


def _act(root: Path, index: RecordIndex, arguments: argparse.Namespace) -> None:
    row = index.find(arguments.project, arguments.id)
    if row is None:
        raise CommandError(f"{arguments.id}: the project has no such record")
    folder = record_folder(root, row.project, row.id)
    match arguments.action:
        case "show":
            summary = read_record(folder / EVENTS).summary.written()
            print(json.dumps(summary, ensure_ascii=False, indent=2))
        case "export":
            arguments.output.mkdir(parents=True, exist_ok=True)
            for name in (EVENTS, AUDIO):
                if (folder / name).exists():
                    print(shutil.copy(folder / name, arguments.output / f"{row.id}.{name}"))
        case _:
            if row.state == RecordState.LIVE.value:
                raise CommandError(f"{row.id}: the conversation goes on; delete it afterwards")
            erase(root, index, row)
            index.forget_traces()
            print(f"{row.id} is deleted")


def _erase_person(root: Path, index: RecordIndex, arguments: argparse.Namespace) -> None:
    query = RecordQuery(
        person=holder_of_user(arguments.user) if arguments.user else "",
        caller=arguments.caller or "",
        device=arguments.device or "",
    )
    deleted, live, after = 0, 0, None
    while rows := index.search(arguments.project, query, limit=_ERASED_AT_ONCE, after=after):
        for row in rows:
            if row.state == RecordState.LIVE.value:
                live += 1
            else:
                deleted += erase(root, index, row)
        after = (rows[-1].began_ms, rows[-1].id)
    index.forget_traces()
    print(f"{deleted} records are deleted")
    if live:
        print(f"{live} conversations go on: erase again once they have ended")


def _shown(row: RecordRow) -> str:
    began = datetime.fromtimestamp(row.began_ms / 1000, UTC).astimezone()
    length = f"{row.duration_ms // 60_000}:{row.duration_ms // 1000 % 60:02}"
    parts = (row.id, f"{began:%Y-%m-%d %H:%M}", length, row.state, row.agent, row.opening)
    return "  ".join(parts).rstrip()


COMMAND = CliCommand(
    "list, export and delete records of conversations",
    "  voicechat records list refund",
    _add_arguments,
    _run,
)
