"""Loads models for onnxruntime."""

import os
from pathlib import Path
from typing import Any

from voicechat.errors import ConfigError

# The runtime reports its use to its vendor over the network unless this is set before
# it is loaded; its own function for this comes too late. A voice server must not report
# to third parties.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251 - it has no other way in

import onnxruntime


def open_model(path: Path, name: str) -> Any:
    """Load a model for one thread; return its `InferenceSession`. Raises `ConfigError`,
    whose message contains ``name``.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no other base class
        raise ConfigError(f"the {name} model {str(path)!r} cannot be loaded: {error}") from error
