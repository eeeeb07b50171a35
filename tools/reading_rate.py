"""How fast documents are read and divided, and how much memory it takes.

    python -m tools.reading_rate FILE...

Each file is read in a process of its own, without the sandbox, and divided into
passages. For a PDF of any length: ``--pages N`` writes and reads one.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import fpdf

from voicechat.documents.child import open_document
from voicechat.documents.splitting import split_pages

_SENTENCE = "Press the start key, and wait until the lamp of the device is green. "


@dataclass(frozen=True, slots=True)
class Rate:
    """What reading one file took."""

    kind: str
    pages: int
    characters: int
    passages: int
    cpu_s: float
    split_s: float
    memory_mib: float
    """Peak memory beyond that of the process before."""


def measure(path: Path) -> Rate:
    """Read a file in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    document = open_document(path.read_bytes(), path.suffix, 1_000_000)
    for number in range(document.page_count):
        document.read_page(number)
    texts = document.texts()
    read = time.process_time()
    passages = split_pages(texts, numbered=document.is_paged)
    return Rate(
        kind=document.kind.value,
        pages=document.page_count,
        characters=sum(map(len, texts)),
        passages=len(passages),
        cpu_s=read - began,
        split_s=time.process_time() - read,
        memory_mib=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    )


def write_pdf(path: Path, pages: int) -> None:
    """Write a manual of 3,000 characters a page, with a table on every fourth page."""
    manual = fpdf.FPDF()
    for number in range(pages):
        manual.add_page()
        manual.set_font("helvetica", size=16)
        manual.cell(text=f"Chapter {number}", new_x="LMARGIN", new_y="NEXT")
        manual.set_font("helvetica", size=10)
        if number % 4 == 0:
            with manual.table() as table:
                for row in range(20):
                    table.row((f"X-{number}-{row}", f"{row * 100} W", "in stock"))
        manual.multi_cell(0, text=_SENTENCE * (20 if number % 4 == 0 else 44))
    manual.output(str(path))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--pages", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = list(arguments.files)
        if arguments.pages:
            files.append(Path(folder) / f"{arguments.pages} pages.pdf")
            write_pdf(files[-1], arguments.pages)
        for path in files:
            # A new process for each: peak memory never falls again.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rate = pool.apply(measure, (path,))
            print(
                f"{path.name}: {rate.kind}, {rate.pages} pages, {rate.characters} characters, "
                f"{rate.passages} passages; {rate.cpu_s:.2f} s "
                f"({rate.pages / rate.cpu_s:.0f} pages/s), divided in {rate.split_s:.2f} s, "
                f"{rate.memory_mib:.0f} MiB"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
