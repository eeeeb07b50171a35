"""``voicechat keys``: make, list and revoke API keys."""

import argparse
import sys
from datetime import UTC, datetime

from voicechat.cli.command import EXIT_OK, Command, CommandError, add_config_argument
from voicechat.config import load_config
from voicechat.server.serve import KEY_FILE
from voicechat.store.keys import KeyStore

MAX_NAME_CHARACTERS = 100


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="create|list|revoke")
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--name", default="", help="whom or what the key is for")
    actions.add_parser("list", help="list the keys: id, name, dates")
    revoke = actions.add_parser("revoke", help="make a key invalid, also in a server that runs")
    revoke.add_argument("id", help="the id that 'voicechat keys list' shows")
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    store = KeyStore(load_config(arguments.config).data_dir / KEY_FILE)
    match arguments.action:
        case "create":
            _create(store, arguments.name)
        case "list":
            _list(store)
        case _:
            if not store.revoke(arguments.id):
                raise CommandError(f"no valid key has the id {arguments.id!r}; 'voicechat keys list' shows the ids")
            print(f"revoked {arguments.id}")
    return EXIT_OK


def _create(store: KeyStore, name: str) -> None:
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise CommandError(f"--name: at most {MAX_NAME_CHARACTERS} printable characters")
    record, key = store.create(name)
    # The key alone goes to stdout: KEY=$(voicechat keys create).
    print(f"key {record.id}; it is shown this once and stored as a hash:", file=sys.stderr)
    print(key)


def _list(store: KeyStore) -> None:
    for key in store.list():
        state = "valid" if key.revoked_s is None else f"revoked {_date(key.revoked_s)}"
        print(f"{key.id}  created {_date(key.created_s)}  {state}  {key.name}".rstrip())


def _date(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")


COMMAND = Command(
    summary="make, list and revoke API keys",
    example="  voicechat keys create --name reception\n  voicechat keys revoke 3f9a01c2",
    add_arguments=_add_arguments,
    run=_run,
)
