"""Measure read throughput of the activation store against sequential reads and zarr, in one run.

``python -m benchmarks.activations DIR`` writes the same values three times below DIR (a few GB, removed again): as a
store, as one plain file, and as zarr in the way of the official code (chunks of 128 samples x 1 layer, zstd 3 with
shuffle). Then it reads all of them in turn, each time after asking the kernel to forget their pages:

- *sequential*: the plain file from end to end, in chunks of one batch and layer;
- *store*: batches of 64 samples drawn over the whole store, each sample checked against its checksum;
- *zarr*: batches of 64 neighbours, 8 threads.

Each is opened once, as a training does, and read once before the clock runs. Values are normal random numbers, which
compress about as little as real activations do. Needs ``pip install zarr``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from raptor.data.store.layout import DTYPES, Field, Store, as_bytes
from raptor.data.store.reading import Reader
from raptor.data.store.writing import ShardWriter
from raptor.extraction.fill import size

TOKENS, WIDTH, BATCH, ALL_LAYERS, IMAGENET = 261, 768, 64, 13, 1_281_167
PIXELS = 3 * 224 * 224
CHUNK, THREADS = 128, 8


def write(folder: Path, samples: int, layers: int, dtype: str) -> None:
    """Write the same values as a store, a plain file and zarr."""
    import zarr
    from zarr.codecs import BloscCodec, BloscShuffle

    fields = [Field(f"layer{i:02d}", dtype, (TOKENS, WIDTH)) for i in range(layers)]
    store = Store.create(folder / "store", fields, samples, CHUNK, {})
    stored = np.float32 if dtype == "float32" else np.uint16  # zarr has no bfloat16
    array = zarr.create_array(
        str(folder / "zarr"),
        shape=(samples, layers, TOKENS, WIDTH),
        chunks=(CHUNK, 1, TOKENS, WIDTH),
        dtype=stored,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle),
    )
    generator = torch.Generator().manual_seed(0)
    with (folder / "plain.bin").open("wb") as plain:
        for shard in range(store.num_shards):
            n = len(store.samples_of(shard))
            values = {f.name: torch.randn(n, *f.shape, generator=generator).to(DTYPES[dtype]) for f in fields}
            with ShardWriter(store, shard) as writer:
                writer.add(values)
                writer.commit()
            for i, x in enumerate(values.values()):
                plain.write(as_bytes(x))
                array[shard * CHUNK : shard * CHUNK + n, i] = np.frombuffer(as_bytes(x), stored).reshape(x.shape)
    store.seal()


def forget(folder: Path) -> None:
    """Drop the cached pages of all files, so that they are read from the disk."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def plain_reader(folder: Path, samples: int, layers: int, dtype: str) -> Callable[[], None]:
    """Read the plain file from end to end."""
    chunk = memoryview(bytearray(BATCH * TOKENS * WIDTH * DTYPES[dtype].itemsize))

    def read() -> None:
        with (folder / "plain.bin").open("rb", buffering=0) as file:
            while file.readinto(chunk):
                pass

    return read


def store_reader(folder: Path, samples: int, layers: int, dtype: str) -> Callable[[], None]:
    """Read shuffled batches of the store."""
    reader, names = Reader(folder / "store"), [f"layer{i:02d}" for i in range(layers)]

    def read() -> None:
        for batch in np.random.default_rng(0).permutation(samples).reshape(-1, BATCH):
            reader.read(batch.tolist(), names)

    return read


def zarr_reader(folder: Path, samples: int, layers: int, dtype: str) -> Callable[[], None]:
    """Read batches of neighbours by zarr."""
    import zarr

    array = zarr.open_array(str(folder / "zarr"), mode="r")

    def read() -> None:
        with zarr.config.set({"threading.max_workers": THREADS}):
            for first in range(0, samples, BATCH):
                array[first : first + BATCH]

    return read


READERS: dict[str, Callable[[Path, int, int, str], Callable[[], None]]] = {
    "sequential": plain_reader,
    "store": store_reader,
    "zarr": zarr_reader,
}


def measure(folder: Path, samples: int, layers: int, dtype: str, repeats: int, *, cold: bool) -> dict[str, list[float]]:
    """Measure the seconds of every reading, all readers in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    readers = {name: open_one(folder, samples, layers, dtype) for name, open_one in READERS.items()}
    for repeat in range(repeats + 1):
        for name, read in readers.items():
            if cold:
                forget(folder)
            begin = time.perf_counter()
            read()
            if repeat:  # the first is for warming up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def disk(folder: Path) -> int:
    """Sum the bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def main() -> None:
    """Measure, print one table of throughput and one of disk space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="on the disk to measure")
    parser.add_argument("--samples", type=int, default=512, help="a multiple of 128 (%(default)s)")
    parser.add_argument("--layers", type=int, default=8, help="layers read in a step (%(default)s: phase 0-7)")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    speed = Table(
        "dtype", "pages", "sequential (MB/s)", "store (MB/s)", "zarr (MB/s)", "store/sequential", "store/zarr"
    )
    space = Table("kept", "bytes an image", "ImageNet-1k")
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            write(folder, arguments.samples, arguments.layers, dtype)
            nbytes = arguments.samples * arguments.layers * TOKENS * WIDTH * DTYPES[dtype].itemsize
            for cold in (True, False):
                seconds = measure(folder, arguments.samples, arguments.layers, dtype, arguments.repeats, cold=cold)
                rate = {kind: nbytes / 1e6 / statistics.median(s) for kind, s in seconds.items()}
                by_pair = [
                    statistics.median(b / a for a, b in zip(seconds["store"], seconds[other], strict=True))
                    for other in ("sequential", "zarr")
                ]
                cells = [f"{rate[kind]:,.0f}" for kind in READERS] + [f"{ratio:.2f}" for ratio in by_pair]
                speed.add_row(dtype, "dropped" if cold else "in memory", *cells)
            for kind in ("store", "zarr"):
                each = disk(folder / kind) / arguments.samples / arguments.layers * ALL_LAYERS
                space.add_row(f"{kind}, 13 layers, {dtype}", size(each), size(each * IMAGENET))
    space.add_row("pixel cache, 3x224x224 uint8", size(PIXELS), size(PIXELS * IMAGENET))
    console = Console(width=120)
    console.print(speed)
    console.print(space)
    shape = f"{arguments.samples} samples x {arguments.layers} layers x {TOKENS} tokens x {WIDTH}, batches of {BATCH}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    console.print(f"{shape}, median of {arguments.repeats}. {platform.machine()}, {os.cpu_count()} cores, {versions}")


if __name__ == "__main__":
    main()
