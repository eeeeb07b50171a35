"""How long it takes to find and open records: ``python -m tools.record_figures
[--records 10000] [--database-url postgresql://...]``.

Fills an index with made-up conversations in English and Chinese, and times searches as
``/v1/records`` makes them.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from voicechat.records.database import open_database
from voicechat.records.folder import SUMMARY, make_folder, new_id, record_folder, write_private
from voicechat.records.index import RecordIndex, RecordQuery, RecordRow, RecordState
from voicechat.records.summary import Summary

WORDS = [f"word{number}" for number in range(3_000)]
HAN = "今天气怎么样请帮我订一个房间明早上七点叫醒谢你好吗价钱多少可以退款地址电话号码订单"
TURNS = 12
SEARCHES = 300


def made_up(chance: random.Random) -> Summary:
    """Return the summary of a conversation that nobody has held."""
    summary = Summary()
    for _ in range(TURNS):
        said = " ".join(chance.choices(WORDS, k=12)) + "".join(chance.choices(HAN, k=10))
        answer = " ".join(chance.choices(WORDS, k=25)) + "".join(chance.choices(HAN, k=20))
        summary.turns.append({"user": said, "answer": {"text": answer}})
    return summary


def timed(count: int, work: Callable[[], object]) -> str:
    """Return the median and the 99th percentile of the times that ``work`` takes."""
    took = []
    for _ in range(count):
        began_s = time.perf_counter()
        work()
        took.append((time.perf_counter() - began_s) * 1000)
    took.sort()
    return f"p50 {took[len(took) // 2]:.1f} ms, p99 {took[len(took) * 99 // 100]:.1f} ms"


def main() -> None:
    """Fill the index, search, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--database-url", default="")
    arguments = parser.parse_args()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        database = open_database(arguments.database_url, root)
        database.open()
        index = RecordIndex(database)
        ids = [fill(root, index, chance, number) for number in range(arguments.records)]
        print(f"{arguments.records} records")

        def one_word() -> object:
            return index.search("p", RecordQuery(words=chance.choice(WORDS)), limit=20)

        def two_words() -> object:
            words = f"{chance.choice(WORDS)} {''.join(chance.choices(HAN, k=2))}"
            return index.search("p", RecordQuery(words=words), limit=20)

        def read() -> object:
            record_id = chance.choice(ids)
            index.find("p", record_id)
            return orjson.loads((record_folder(root, "p", record_id) / SUMMARY).read_bytes())

        print("newest page:", timed(SEARCHES, lambda: index.search("p", RecordQuery(), limit=20)))
        print("one word:   ", timed(SEARCHES, one_word))
        print("two words:  ", timed(SEARCHES, two_words))
        print("open one:   ", timed(SEARCHES, read))
        if arguments.database_url:
            for record_id in ids:
                index.delete(record_id)
        database.close()


def fill(root: Path, index: RecordIndex, chance: random.Random, number: int) -> str:
    """Add a made-up record; return its id."""
    row = RecordRow(
        id=new_id(),
        place="here",
        writer="w",
        state=RecordState.LIVE.value,
        project="p",
        key_id="k",
        person="",
        caller=f"+{number % 500}",
        device="",
        agent=f"agent{number % 7}",
        dialect="speech-chat",
        mode="audio",
        began_ms=1_700_000_000_000 + number * 1000,
        expires_ms=2**41,
    )
    summary = made_up(chance)
    index.add(row)
    index.finish(row.id, RecordState.DONE, summary, 1000)
    folder = record_folder(root, row.project, row.id)
    make_folder(folder)
    write_private(folder / SUMMARY, orjson.dumps(summary.written()))
    return row.id


if __name__ == "__main__":
    main()
