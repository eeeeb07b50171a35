"""onnxruntime for the models of child processes."""

from typing import Any

import onnxruntime


def open_session(path: str, threads: int) -> Any:
    """Load a model for the CPU. Raises onnxruntime's errors.

    Its threads sleep between two operators instead of spinning, because other processes
    need the cores.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
