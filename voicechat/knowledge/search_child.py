"""The child process that searches a SQLite store; see
``voicechat.knowledge.search_process``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
from threadpoolctl import threadpool_limits

from voicechat.knowledge import statements, words
from voicechat.knowledge.search_process import SearchOptions, decoded
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore
from voicechat.processes.child import JobFactory, serve

AT_ONCE = 10
"""Findings of one answer, which the server's event loop decodes in 0.1 ms."""


class SearchJob:
    """One search. Its answers are lists of findings in JSON."""

    def __init__(self, store: SqliteKnowledgeStore, request: bytes) -> None:
        self._store = store
        self._request = request

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Never called: the options are the request."""
        raise NotImplementedError

    def finish_input(self) -> Iterator[bytes]:
        """Search."""
        asked, vector = decoded(self._request)
        where = (asked.kind, asked.project, asked.bases)
        with self._store.transaction(writes=False) as database:
            if asked.text is not None:
                found = statements.by_words(database, *where, asked.text, asked.limit)
            else:
                found = statements.by_vector(database, *where, vector, asked.limit, asked.embedder)
        for begin in range(0, len(found), AT_ONCE):
            yield orjson.dumps(found[begin : begin + AT_ONCE])

    def close(self) -> None:
        """Do nothing: no resources are held."""


def main() -> None:
    """Serve searches; the argument is `SearchOptions` as JSON."""
    options = SearchOptions(**orjson.loads(sys.argv[1]))

    def load() -> JobFactory:
        # More threads of the matrix product would take the cores from the event loops.
        threadpool_limits(limits=1, user_api="blas")
        words.load()
        store = SqliteKnowledgeStore(Path(options.path), options.vector_cache_bytes)
        store.load_vectors()
        return lambda request: SearchJob(store, request)

    serve(load)


if __name__ == "__main__":
    main()
