"""The configuration that the parent sends a worker at its start."""

from dataclasses import dataclass
from pathlib import Path

from voicechat.config import Config
from voicechat.server.credentials import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """A worker's configuration. All workers of a server, including replacements, have
    the same one except for ``number``.
    """

    number: int
    """Counted from 0."""
    workers: int
    config: Config
    credentials: Credentials
    port: int
    ledger: Path
    shared: Path
    """The folder of the multiprocess metrics."""
    host: Path
    """The socket of the parent's `ChildHost`."""
    import_path: tuple[str, ...]
    """The parent's ``sys.path``: a plug-in may lie beside the program that started the
    server.
    """
    log_level: int
    engine_log_level: int
