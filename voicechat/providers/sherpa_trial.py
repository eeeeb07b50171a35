"""Loads a model once in a child process, which reads the plan as JSON from its standard
input.

sherpa-onnx does not raise for an unusable file: it prints a line and ends its process,
which would be the server. Here only the child ends, and its last line explains the
error.
"""

import asyncio
import json
import sys
from dataclasses import asdict

from voicechat.errors import FailureKind, ProviderError
from voicechat.processes import python
from voicechat.providers.sherpa_loading import PROVIDER, SherpaPlan, load

DEADLINE_S = 120.0
MAX_SHOWN_CHARACTERS = 300


async def try_plan(plan: SherpaPlan) -> None:
    """Load the model in a child process. Raises `ProviderError`: BROKEN if that ends
    the child, TIMEOUT if it hangs.

    Cancelling ends the child.
    """
    child = await asyncio.create_subprocess_exec(
        *python.command("voicechat.providers.sherpa_trial"),
        env=python.environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            _, said = await child.communicate(json.dumps(asdict(plan)).encode())
    except TimeoutError as error:
        raise ProviderError(
            PROVIDER, FailureKind.TIMEOUT, f"not loaded within {DEADLINE_S:g} s"
        ) from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        raise ProviderError(
            PROVIDER, FailureKind.BROKEN, f"the model cannot be loaded: {_last_words(said)}"
        )


def _last_words(said: bytes) -> str:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return (
        lines[-1][-MAX_SHOWN_CHARACTERS:]
        if lines
        else "the process that tried it ended without a word"
    )


def main() -> None:
    """Load the plan from stdin; exit with 0 on success."""
    load(SherpaPlan(**json.load(sys.stdin)))


if __name__ == "__main__":
    main()
