"""The child process of the ``llama_cpp`` provider: llama.cpp's server, one model."""

import secrets
import sys
from collections.abc import Iterable
from typing import Any

import orjson
import xllamacpp

from voicechat.processes.child import serve
from voicechat.providers.llama_cpp import LlamaOptions, ServerAddress

BATCH_TOKENS = 256
"""Tokens of a prompt that are processed at once. A cancelled reply ends after the
current batch, and replies in progress wait for one batch.
"""
DRY, DRY_TOKENS = 0.8, 512
"""Strength and range of the sampler against repetition. The strength is the one its
author proposed.
"""


def parameters_of(options: LlamaOptions, api_key: str) -> Any:
    """Return llama.cpp's parameters."""
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.name}
    params.n_ctx = options.context
    params.n_parallel = options.replies
    params.kv_unified = True
    params.n_predict = options.max_tokens
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.cache_ram_mib = options.cache_mib
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    # Waiting threads sleep, because other processes need the cores.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.n_threads_http = options.replies + 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [api_key]
    params.ui = False
    params.endpoint_slots = False
    params.use_jinja = True
    # Small models repeat a list for ever. This sampler makes the continuation of a
    # repeated passage less probable, the more the longer the passage is (DRY,
    # llama.cpp's tools/server).
    params.sampling.dry_multiplier = DRY
    params.sampling.dry_penalty_last_n = DRY_TOKENS
    params.verbosity = -1
    return params


class AddressJob:
    """Holds a slot for one reply, and returns the server's address."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address

    def feed_payload(self, _payload: bytes) -> Iterable[bytes]:
        """Return the address."""
        return (orjson.dumps(self._address),)

    def finish_input(self) -> Iterable[bytes]:
        """Return nothing."""
        return ()

    def close(self) -> None:
        """Do nothing: the reply ends with its connection."""


def main() -> None:
    """Serve replies; the argument is `LlamaOptions` as JSON."""
    options = LlamaOptions(**orjson.loads(sys.argv[1]))

    def load() -> Any:
        api_key = secrets.token_urlsafe(32)
        server = xllamacpp.Server(parameters_of(options, api_key))
        address = ServerAddress(base_url=f"{server.listening_address}/v1", api_key=api_key)

        def open_job(_options: bytes, _server: Any = server) -> AddressJob:
            return AddressJob(address)

        return open_job

    serve(load, niceness=options.niceness)


if __name__ == "__main__":
    main()
