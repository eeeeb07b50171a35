"""``voicechat keys``: create, list and revoke API keys."""

import argparse
import re
import sys
from datetime import UTC, datetime

from voicechat.cli.command import EXIT_OK, CliCommand, CommandError, add_config_argument
from voicechat.config import load_config
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.serve import KEY_FILE
from voicechat.store.access import ApiEndpoint, Grant, Quota, Scope
from voicechat.store.keys import ApiKey, KeyStore

MAX_NAME_CHARACTERS = 100
MAX_PROJECT_CHARACTERS = 100
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_LENGTH = re.compile(r"([1-9][0-9]{0,5})([mhd])")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="create|list|revoke")
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--name", default="", help="whom or what the key is for")
    _add_grant_arguments(create)
    actions.add_parser("list", help="list the keys: id, name, dates, limits")
    revoke = actions.add_parser("revoke", help="make a key invalid, also in a server that runs")
    revoke.add_argument("id", help="the id that 'voicechat keys list' shows")
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    store = KeyStore(load_config(arguments.config).data_dir / KEY_FILE)
    match arguments.action:
        case "create":
            _create(store, arguments.name, _grant(arguments))
        case "list":
            _list(store)
        case _:
            if not store.revoke_key(arguments.id):
                raise CommandError(
                    f"no valid key has the id {arguments.id!r}; 'voicechat keys list' shows the ids"
                )
            print(f"revoked {arguments.id}")
    return EXIT_OK


def _add_grant_arguments(create: argparse.ArgumentParser) -> None:
    endpoints = [endpoint.value for endpoint in ApiEndpoint]
    create.add_argument(
        "--project",
        action="append",
        default=[],
        metavar="P",
        help="only this project, and may be repeated; the first one serves paths without a project",
    )
    create.add_argument(
        "--endpoint",
        action="append",
        default=[],
        metavar="E",
        choices=endpoints,
        help=f"only this endpoint, and may be repeated: {', '.join(endpoints)}",
    )
    create.add_argument(
        "--expires", type=_length_s, metavar="TIME", help="such as 90m, 12h or 30d (default: never)"
    )
    create.add_argument(
        "--max-sessions", type=_count, metavar="N", help="sockets and requests at once"
    )
    create.add_argument("--requests-per-minute", type=_count, metavar="N")
    create.add_argument(
        "--audio-seconds-per-day", type=_count, metavar="N", help="recognised and spoken, together"
    )


def _length_s(text: str) -> int:
    parts = _LENGTH.fullmatch(text)
    if parts is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number with m, h or d behind it, such as 30d"
        )
    return int(parts[1]) * _SECONDS[parts[2]]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:10]) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000000")
    return int(text[:10])


def _grant(arguments: argparse.Namespace) -> Grant:
    for project in arguments.project:
        if (
            not 0 < len(project) <= MAX_PROJECT_CHARACTERS
            or not project.isprintable()
            or "/" in project
        ):
            raise CommandError(
                f"--project: 1 to {MAX_PROJECT_CHARACTERS} printable characters without a slash"
            )
    return Grant(
        scope=Scope(
            projects=tuple(arguments.project), endpoints=tuple(map(ApiEndpoint, arguments.endpoint))
        ),
        quota=Quota(
            max_sessions=arguments.max_sessions,
            requests_per_minute=arguments.requests_per_minute,
            audio_seconds_per_day=arguments.audio_seconds_per_day,
        ),
        expires_s=None if arguments.expires is None else int(unix_s()) + arguments.expires,
    )


def _create(store: KeyStore, name: str, grant: Grant) -> None:
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise CommandError(f"--name: at most {MAX_NAME_CHARACTERS} printable characters")
    record, key = store.create_key(name, grant)
    # The key alone goes to stdout: KEY=$(voicechat keys create).
    print(f"key {record.id}; it is shown this once and stored as a hash:", file=sys.stderr)
    print(key)


def _list(store: KeyStore) -> None:
    for key in store.list_keys():
        words = [
            key.id,
            f"created {_date(key.created_s)}",
            _state(key),
            *_limits(key.grant),
            key.name,
        ]
        print("  ".join(filter(None, words)))


def _state(key: ApiKey) -> str:
    if key.revoked_s is not None:
        return f"revoked {_date(key.revoked_s)}"
    if key.grant.expires_s is None:
        return "valid"
    return (
        f"expired {_date(key.grant.expires_s)}"
        if key.expired(unix_s())
        else f"until {_date(key.grant.expires_s)}"
    )


def _limits(grant: Grant) -> list[str]:
    counts = {
        "sessions": grant.quota.max_sessions,
        "requests/min": grant.quota.requests_per_minute,
        "audio s/day": grant.quota.audio_seconds_per_day,
    }
    words = [f"{count} {what}" for what, count in counts.items() if count is not None]
    if grant.scope.projects:
        words.append(f"projects {','.join(grant.scope.projects)}")
    if grant.scope.endpoints:
        words.append(f"endpoints {','.join(endpoint.value for endpoint in grant.scope.endpoints)}")
    return words


def _date(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")


COMMAND = CliCommand(
    summary="make, list and revoke API keys",
    example="  voicechat keys create --name reception\n"
    "  voicechat keys create --project shop --endpoint tokens --endpoint conversation "
    "--expires 30d --max-sessions 20\n"
    "  voicechat keys revoke 3f9a01c2",
    add_arguments=_add_arguments,
    run=_run,
)
