"""``voicechat devices``: list, pair and revoke devices, show and erase what agents
remember of them.
"""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime

from voicechat.cli.command import EXIT_OK, CliCommand, CommandError, add_config_argument
from voicechat.config import Config, load_config
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.serve import KEY_FILE
from voicechat.store.devices import Device, DeviceStore, UnknownCodeError
from voicechat.store.keys import KeyStore

MAX_NAME_CHARACTERS = 100


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="list|pair|revoke|memory|forget"
    )
    actions.add_parser("list", help="list the devices, and those that wait to be paired")
    pair = actions.add_parser("pair", help="let a device in that shows six digits")
    pair.add_argument("code", help="the six digits that the device shows or says")
    pair.add_argument("--agent", default="", help="the agent that answers it")
    pair.add_argument("--name", default="", help="what you call it")
    revoke = actions.add_parser("revoke", help="lock a device out, also while it talks")
    revoke.add_argument("id", help="the id that 'voicechat devices list' shows")
    memory = actions.add_parser("memory", help="show what agents remember of a device")
    memory.add_argument("id", help="the device")
    memory.add_argument("--json", action="store_true", help="all of it, for programs")
    forget = actions.add_parser("forget", help="erase what agents remember of a device")
    forget.add_argument("id", help="the device")
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    store = DeviceStore(config.data_dir, KeyStore(config.data_dir / KEY_FILE))
    match arguments.action:
        case "list":
            _list(store)
        case "pair":
            _pair(store, config, arguments)
        case "memory":
            _show_memory(store, arguments.id.lower(), as_json=arguments.json)
        case "forget":
            if not store.forget(arguments.id.lower()):
                raise CommandError(f"nothing is remembered of {arguments.id!r}")
            print(f"forgot {arguments.id.lower()}")
        case _:
            if not store.revoke(arguments.id.lower(), int(unix_s())):
                raise CommandError(
                    f"no device that may talk has the id {arguments.id!r}; "
                    "'voicechat devices list' shows the ids"
                )
            print(f"revoked {arguments.id.lower()}")
    return EXIT_OK


def _list(store: DeviceStore) -> None:
    for device in store.list_devices():
        words = (device.id, _state(device), device.agent, device.about, device.name)
        print("  ".join(filter(None, words)))
    for waiting in store.list_waiting(int(unix_s())):
        told = (waiting.id, f"waits, code {waiting.code}", waiting.about)
        print("  ".join(filter(None, told)))


def _state(device: Device) -> str:
    if device.revoked_s is not None:
        return f"revoked {_date(device.revoked_s)}"
    return f"paired {_date(device.created_s)}, seen {_date(device.seen_s)}"


def _pair(store: DeviceStore, config: Config, arguments: argparse.Namespace) -> None:
    agent, name, code = arguments.agent, arguments.name, arguments.code.replace(" ", "")
    if agent and agent not in config.agents.agents:
        known = ", ".join(sorted(config.agents.agents))
        raise CommandError(f"--agent: {agent!r} is not configured; there are: {known}")
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise CommandError(f"--name: at most {MAX_NAME_CHARACTERS} printable characters")
    try:
        device = store.pair(code, agent, name, int(unix_s()))
    except UnknownCodeError:
        raise CommandError(
            f"no device waits with the code {code!r}; a code is valid for ten minutes after "
            "the device last asked, and 'voicechat devices list' shows those that wait"
        ) from None
    print(f"paired {device.id}; it connects when it asks again, in a minute at most")


def _show_memory(store: DeviceStore, device_id: str, *, as_json: bool) -> None:
    memories = store.memories_of(device_id)
    if as_json:
        written = {agent: asdict(memory) for agent, memory in memories.items()}
        print(json.dumps({"device": device_id, "agents": written}, ensure_ascii=False, indent=2))
        return
    if not memories:
        print(f"nothing is remembered of {device_id}")
    for agent, memory in memories.items():
        print(f"{agent}, {_date(memory.updated_s)}:")
        print(memory.summary or "(no summary)")
        for turn in memory.turns:
            print(f"  {turn}")


def _date(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")


COMMAND = CliCommand(
    summary="list, pair and revoke devices with the xiaozhi firmware; their memory",
    example="  voicechat devices list\n"
    "  voicechat devices pair 123456 --agent kitchen --name 'by the window'\n"
    "  voicechat devices revoke 98:3d:ae:00:11:22",
    add_arguments=_add_arguments,
    run=_run,
)
