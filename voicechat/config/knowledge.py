"""Opens what ``[knowledge]`` describes."""

import importlib.util
from pathlib import Path

from voicechat.config.sections import Config
from voicechat.errors import ConfigError
from voicechat.knowledge.interface import KnowledgeStore
from voicechat.knowledge.retriever import Retriever
from voicechat.providers.interfaces import TextEmbedder
from voicechat.runtime.media_services import ServicesOfKind

FOLDER = "knowledge"
DATABASE_FILE = "knowledge.sqlite3"
FILES_FOLDER = "files"
_MIB = 1 << 20
_MODULES = ("rjieba", "Stemmer")


def knowledge_folder(config: Config) -> Path:
    """Return where the uploaded files are, in ``FILES_FOLDER``, and the SQLite file."""
    folder = config.knowledge.folder
    return Path(folder).expanduser() if folder else config.data_dir / FOLDER


def open_knowledge(config: Config, embedders: ServicesOfKind[TextEmbedder]) -> Retriever | None:
    """Open the knowledge bases, inactive until their ``start``.

    None if they are switched off, or if the packages are missing and nothing is
    configured. Raises ``ConfigError`` naming the key.
    """
    knowledge = config.knowledge
    if knowledge.enabled is False:
        return None
    if not all(map(importlib.util.find_spec, _MODULES)):
        if _needed(config):
            raise ConfigError("knowledge: it needs packages: pip install 'voicechat[knowledge]'")
        return None
    return Retriever(_open_store(config), _embedder(config, embedders), needed=_needed(config))


def _needed(config: Config) -> bool:
    """Whether knowledge is configured, not only possible."""
    return bool(
        config.knowledge.enabled
        or config.knowledge.model_fields_set
        or any(agent.knowledge for agent in config.agents.agents.values())
    )


def _embedder(config: Config, embedders: ServicesOfKind[TextEmbedder]) -> TextEmbedder | None:
    name = config.knowledge.embedder
    if name in embedders.services:
        return embedders.services[name]
    if name and "embedder" in config.knowledge.model_fields_set:
        raise ConfigError(f"knowledge.embedder: there is no service embedders.{name}")
    return None


def _open_store(config: Config) -> KnowledgeStore:
    """Import only the store that is used."""
    if url := config.knowledge.database_url:
        from voicechat.knowledge.postgres_store import PostgresKnowledgeStore

        return PostgresKnowledgeStore(url)
    from voicechat.knowledge.search_process import SearchProcess
    from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore

    file = knowledge_folder(config) / DATABASE_FILE
    cache_bytes = config.knowledge.vector_cache_mib * _MIB
    return SqliteKnowledgeStore(file, cache_bytes, SearchProcess(file, cache_bytes))
