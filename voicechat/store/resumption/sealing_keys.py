"""The keys that encrypt the states of conversations: read from the configuration, or
made by this machine for itself.
"""

import base64
import os
import secrets
from pathlib import Path

from voicechat.errors import ConfigError

KEY_BYTES = 32
KEY_FILE = "resumption.key"
_WANTED = f"{KEY_BYTES} random bytes in base64, such as 'openssl rand -base64 {KEY_BYTES}' prints"


def read_key(text: str) -> bytes:
    """Return the 32 bytes that ``text`` writes in base64 (with ``+/`` or ``-_``, padded
    or not). Raises ``ValueError``.
    """
    plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:  # binascii.Error among them
        raise ValueError(_WANTED) from None
    if len(key) != KEY_BYTES:
        raise ValueError(_WANTED)
    return key


def key_of_file(folder: Path) -> bytes:
    """Read the key that this machine has made for itself, or make it, in a file that
    only its owner can read. Raises ``ConfigError`` if that is impossible.
    """
    path = folder / KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_name(f"{KEY_FILE}.{secrets.token_hex(4)}")
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            try:
                os.link(draft, path)  # the first of several processes wins
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return read_key(path.read_text("ascii", "replace"))
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be used: {error}") from error
    except ValueError:
        raise ConfigError(
            f"the key file {path} does not hold a key: delete it, and a new one is made"
        ) from None
