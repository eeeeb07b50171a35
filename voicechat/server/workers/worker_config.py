"""What a worker is told to be."""

from dataclasses import dataclass
from pathlib import Path

from voicechat.config import Config
from voicechat.server.credentials import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Everything that a worker needs to know. The workers of a server, later ones too,
    have the same configuration.
    """

    number: int
    """From 0."""
    workers: int
    config: Config
    credentials: Credentials
    port: int
    ledger: Path
    shared: Path
    """The folder of the metrics."""
    import_path: tuple[str, ...]
    """Where the parent finds modules: a plug-in may lie beside its own program."""
    log_level: int
    engine_log_level: int
