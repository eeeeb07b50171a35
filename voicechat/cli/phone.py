"""``voicechat phone``: what to paste where so that a provider's calls arrive."""

import argparse
import re
from urllib.parse import quote

from voicechat.cli.command import EXIT_OK, EXIT_USAGE, CliCommand, CommandError
from voicechat.dialects.audiosocket.endpoint import PORT
from voicechat.server.phone.answers import PROVIDERS
from voicechat.server.phone.signatures import SETTINGS

_URL = re.compile(r"https?://[^/?#\s]+(?:/[^?#\s]*)?")
_PLACES = {
    "twilio": 'Phone Numbers > Active numbers > the number > Voice: "A call comes in", '
    "Webhook, HTTP POST",
    "telnyx": "Voice > Programmable Voice > TeXML applications: the voice URL, POST",
    "plivo": "Voice > Applications: the primary answer URL, POST",
    "vonage": "Applications > the application > Voice: the answer URL, POST",
    "jambonz": "Applications > the application: the calling webhook, POST",
    "exotel": "App Bazaar > the flow > Voicebot applet: the URL",
}
"""Where a provider's console takes the address of a webhook."""
_SECRETS = {
    "twilio": "the auth token of the console's first page",
    "plivo": "the auth token of the console's first page",
    "telnyx": "the public key of the account's keys and credentials (needs pip install "
    "'voicechat[phones]')",
    "vonage": "the signature secret of the account's settings (needs pip install "
    "'voicechat[phones]')",
}
"""What checks the signatures of a provider, and where it is found."""
_SIGNED = """\
and in voicechat.toml, with {secret}:

[phone]
public_url = "{public_url}"
{setting} = "..."
"""
_WITH_KEY = """\
where KEY is one of its own (voicechat keys create --name {provider} --endpoint conversation);
and in voicechat.toml:

[phone]
public_url = "{public_url}"
"""
_AUDIOSOCKET = """\
In voicechat.toml:

[dialects.asterisk]
dialect = "voicechat.dialects.audiosocket:open_endpoint"
host = "127.0.0.1"
port = {port}
agent = "{agent}"

and in extensions.conf, where Asterisk runs on the same machine:

exten => 100,1,Answer()
 same => n,Set(ID=${{UUID()}})
 same => n,AudioSocket(${{ID}},127.0.0.1:{port})
 same => n,Hangup()
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("line", choices=(*PROVIDERS, "audiosocket"), help="what brings the calls")
    parser.add_argument(
        "--public-url",
        metavar="URL",
        help="how the provider reaches this server, such as https://voice.example.org",
    )
    parser.add_argument("--agent", default="", help="who answers (default: as the numbers say)")


def _run(arguments: argparse.Namespace) -> int:
    print(instructions(arguments.line, arguments.public_url or "", arguments.agent))
    return EXIT_OK


def instructions(line: str, public_url: str, agent: str = "") -> str:
    """Return what to paste where. Raises ``CommandError`` for an address that no
    provider can call.
    """
    if line == "audiosocket":
        return _AUDIOSOCKET.format(port=PORT, agent=agent or "default")
    base = public_url.rstrip("/")
    if not _URL.fullmatch(base):
        raise CommandError(
            f"--public-url: {public_url!r} is not an address such as https://voice.example.org",
            EXIT_USAGE,
        )
    behind = f"/{quote(agent, safe='')}" if agent else ""
    if line in SETTINGS:
        key, secret, setting = "", _SECRETS[line], SETTINGS[line]
        rest = _SIGNED.format(public_url=base, secret=secret, setting=setting)
    else:
        key, rest = "?token=KEY", _WITH_KEY.format(public_url=base, provider=line)
    where = f"In {line.capitalize()}'s console, {_PLACES[line]}:"
    return f"{where}\n\n{base}/phone/{line}/voice{behind}{key}\n\n{rest}"


COMMAND = CliCommand(
    summary="print what to paste where so that a telephone provider's calls arrive",
    example="  voicechat phone twilio --public-url https://voice.example.org --agent hotel",
    add_arguments=_add_arguments,
    run=_run,
)
