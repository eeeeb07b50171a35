"""Opens what ``[resumption]`` describes."""

from collections.abc import Callable

from voicechat.config.sections import Config
from voicechat.config.server_sections import REDIS_SCHEMES
from voicechat.errors import ConfigError
from voicechat.runtime.guarded_store import GuardedStore, StoreCalled
from voicechat.runtime.lease_keeper import RENEW_S
from voicechat.store.resumption.interface import ResumptionStore
from voicechat.store.resumption.memory import MemoryResumptionStore
from voicechat.store.resumption.sealed import SealedStore
from voicechat.store.resumption.sealing_keys import key_of_file, read_key
from voicechat.store.resumption.sqlite import FILE, SqliteResumptionStore

MARGIN_S = 10.0
"""States are kept this much longer than the window, because the last renewal may have
been a while ago when a process dies.
"""


def open_resumption_store(
    config: Config, observe: Callable[[StoreCalled], None] = lambda _: None
) -> ResumptionStore | None:
    """Open the store of conversations, inactive until its ``start``. None if none can
    be resumed. ``observe`` is called after each operation.

    Raises ``ConfigError`` naming the key.
    """
    settings = config.resumption
    if not settings.window_ms:
        return None
    deadline_s = settings.deadline_ms / 1000
    lifetime_s = settings.window_ms / 1000 + MARGIN_S + RENEW_S
    if settings.store == "memory":
        return GuardedStore(MemoryResumptionStore(lifetime_s), deadline_s, observe)
    if settings.store.startswith(REDIS_SCHEMES):
        store = _open_redis(settings.store, lifetime_s, deadline_s)
        if not settings.key:
            raise ConfigError(
                "resumption.key: Redis gets nothing that is not encrypted: set the same key on "
                "all machines, such as 'openssl rand -base64 32' prints"
            )
    else:
        store = SqliteResumptionStore(config.data_dir / FILE, lifetime_s)
    newest = read_key(settings.key) if settings.key else key_of_file(config.data_dir)
    keys = [newest, *map(read_key, settings.old_keys)]
    return GuardedStore(SealedStore(store, keys), deadline_s, observe)


def _open_redis(url: str, lifetime_s: float, deadline_s: float) -> ResumptionStore:
    try:
        from voicechat.store.resumption.redis import RedisResumptionStore
    except ImportError as error:
        raise ConfigError(
            "resumption.store: Redis needs a package: pip install 'voicechat[cluster]'"
        ) from error
    return RedisResumptionStore(url, lifetime_s, deadline_s=deadline_s)
