"""The key that a server on loopback creates for itself, so that one command is enough
to try the server.

It is stored in plain text, because the demo's address that is printed at every start
contains it. Therefore only its owner can read the file, and the server accepts the key
only while it listens on loopback and no other key exists.
"""

import os
import re
import secrets
from pathlib import Path

from voicechat.errors import ConfigError
from voicechat.store.keys import SECRET_BYTES

_FILE_NAME = "local.key"
_FORM = re.compile(r"local_[A-Za-z0-9_-]{43}")


def local_key(data_dir: Path) -> str:
    """Read the key, or create it on the first call. Raises ConfigError if the data
    directory cannot be used.
    """
    path = data_dir / _FILE_NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = path.read_text("ascii", "replace").strip() if path.exists() else ""
        if not _FORM.fullmatch(key):
            key = _write_new(path)
        path.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"the data directory {data_dir} cannot be used: {error}") from error
    return key


def _write_new(path: Path) -> str:
    """Write a new key to another file, then rename it, so that a crash or a second
    server never leaves or reads a partial key.
    """
    key = f"local_{secrets.token_urlsafe(SECRET_BYTES)}"
    draft = path.with_name(f"{_FILE_NAME}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
    draft.replace(path)
    return key
