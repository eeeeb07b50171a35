"""Runs schemathesis against a live server: ``python -m tools.rest_conformance
[schemathesis command]``.

A command of its own, because schemathesis is no dependency of the tests and takes
minutes. It looks for answers with a 5xx status, for answers outside the OpenAPI
document, and for requests outside it that are granted. The document that it is given
names the services that exist, so that random requests get past the 404.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.compat.stage import media_stage
from tests.rest.live import KEY
from voicechat.testing.scripted import ScriptedModel

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
)
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]
"""
"""A body that is too large is refused with 413, whatever else is wrong with it."""
FORMATS = [
    "MP3_16000HZ_MONO_128KBPS",
    "WAV_16000HZ_MONO_16BIT",
    "PCM_8000HZ_MONO_16BIT",
    "OGG_OPUS_24KHZ_MONO_32KBPS",
]


def with_known_names(document: Any) -> Any:
    """Narrow fields that name a service or a format to names that exist."""
    schemas = document["components"]["schemas"]
    for name, field in (
        ("CompletionRequest", "model"),
        ("RelayCompletions", "model"),
        ("RelayCompletion", "model"),
        ("RelayChat", "model"),
        ("RelayEdits", "model"),
        ("SpokenCompletion", "model"),
        ("OpenAISpeechRequest", "model"),
        ("SpeechRequest", "easyllm_id"),
        ("SpeechPart", "easyllm_id"),
    ):
        schemas[name]["properties"][field]["enum"] = ["default"]
    schemas["SynthesisParam"]["properties"]["format"] = {"enum": FORMATS}
    return document


async def run(command: str, examples: int) -> int:
    """Run schemathesis and return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        # Two services of each kind, so that an unknown name is refused.
        async with media_stage(
            Path(folder), models={"other": ScriptedModel()}, services=("other",)
        ) as stage:
            live = stage.live
            document = Path(folder) / "openapi.json"
            document.write_text(
                json.dumps(with_known_names((await live.ask("/openapi.json", method="GET")).json))
            )
            (Path(folder) / "schemathesis.toml").write_text(CONFIG)
            process = await asyncio.create_subprocess_exec(
                command,
                "run",
                str(document),
                "--url",
                live.url,
                "--header",
                f"Authorization: Bearer {KEY}",
                "--checks",
                ",".join(CHECKS),
                "--phases",
                "coverage,fuzzing",
                "--max-examples",
                str(examples),
                cwd=folder,
            )
            return await process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="?", default="schemathesis")
    parser.add_argument("--examples", type=int, default=100, help="for each operation")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(run(arguments.command, arguments.examples)))
