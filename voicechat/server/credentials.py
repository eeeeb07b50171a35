"""The keys that a server accepts, according to its configuration."""

import logging
from dataclasses import dataclass

from voicechat.config import Config
from voicechat.errors import ConfigError
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.listener import is_loopback
from voicechat.store.keys import KeyStore
from voicechat.store.local_key import local_key

KEY_FILE = "keys.sqlite3"
LOCAL_KEY_ID = "local"
ENVIRONMENT_KEY_ID = "environment"


LOCAL_KEY_CHARACTERS = 4
"""Shortest key that the environment may set for a server on loopback."""
OPEN_KEY_CHARACTERS = 8
"""Shortest key where other machines can guess it."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The accepted keys. ``shown`` is the key that the announced address may carry, or
    None.
    """

    store: KeyStore
    static_keys: dict[str, str]
    shown: str | None

    def accept(self, key: str) -> bool:
        """Return whether a key is valid now. Raises ConfigError if the file of the keys
        is broken.
        """
        self.store.refresh()
        return key in self.static_keys.values() or bool(self.store.find_key(key, unix_s()))


def credentials(config: Config) -> Credentials:
    """Return the configured keys; on loopback without any, make one. Warn if the guest
    key is none of them.

    Raises ConfigError: a key is too short, or the server is reachable from other
    machines and has no key.
    """
    found = _credentials(config)
    if config.compat.guest_key and not found.accept(config.compat.guest_key):
        _log.warning(
            "compat.guest_key is no valid key of this server, so clients without a key are "
            "refused; 'voicechat keys create' makes one"
        )
    return found


def _credentials(config: Config) -> Credentials:
    store = KeyStore(config.data_dir / KEY_FILE)
    if config.api_key:
        _check_length(config.api_key, config.server.host)
        return Credentials(store, {ENVIRONMENT_KEY_ID: config.api_key}, None)
    if store.has_valid_keys(unix_s()):
        return Credentials(store, {}, None)
    if not is_loopback(config.server.host):
        raise ConfigError(
            f"server.host: {config.server.host} can be reached from other machines, but there is "
            "no key: make one with 'voicechat keys create', or set VOICECHAT_API_KEY, or listen "
            "on 127.0.0.1"
        )
    key = local_key(config.data_dir)
    return Credentials(store, {LOCAL_KEY_ID: key}, key)


def _check_length(key: str, host: str) -> None:
    """Refuse a key that is easily guessed. Raises ConfigError."""
    fewest = LOCAL_KEY_CHARACTERS if is_loopback(host) else OPEN_KEY_CHARACTERS
    if len(key) < fewest:
        raise ConfigError(
            f"VOICECHAT_API_KEY: {len(key)} characters are soon guessed; use {fewest} at least "
            f"on {host}, or keys of 'voicechat keys create'"
        )
