"""Keep samples on disk as raw shards: the one format of the pixel cache and of the activation store.

A store is a folder::

    manifest.json                content and origin; once complete, samples left out and a checksum of every shard
    shards/00000/<field>.bin     the raw values of one field, sample after sample; can be memory-mapped
    shards/00000/checksums.npy   XXH3 of every sample of every field, (fields, samples) uint64
    shards/00000/shard.json      number of samples, checksum of the checksums

A shard appears by one rename, whole or not at all; several processes fill different shards of one store.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from raptor.errors import StoreError
from raptor.utils.files import read_json, write_json

FORMAT = {"format": "raptor-store", "version": 1}
MANIFEST, SHARD, CHECKSUMS = "manifest.json", "shard.json", "checksums.npy"
LEFT_OUT = "left_out"  # in the manifest and in shards: samples whose file could not be used, with the reason
DTYPES = {name: getattr(torch, name) for name in ("uint8", "int64", "float32", "bfloat16", "float16")}


@dataclass(frozen=True)
class Field:
    """One array of a store.

    Parameters
    ----------
    name
        Name of the field and its files.
    dtype
        One of :data:`DTYPES`.
    shape
        Shape of one sample.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


def as_bytes(values: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor, ``(samples, ...)``, as flat bytes."""
    return memoryview(values.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


class Store:
    """An existing store.

    Parameters
    ----------
    path
        Its folder.

    Raises
    ------
    StoreError
        If there is none, or its manifest is damaged or of a later version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        manifest = read_json(self.path / MANIFEST)
        if manifest is None or manifest.get("format") != FORMAT["format"]:
            if (self.path / MANIFEST).exists():
                raise _damaged(self.path / MANIFEST)
            raise StoreError.of("store", self.path, "a store", "make one with python -m raptor.extract")
        if manifest.get("version") != FORMAT["version"]:
            expected = f"a store of version {FORMAT['version']}, it has version {manifest.get('version')}"
            raise StoreError.of("store", self.path, expected, "update raptor")
        self.manifest = manifest
        try:
            self.about: dict[str, Any] = manifest["about"]
            self.samples, self.shard_size = int(manifest["samples"]), int(manifest["shard_size"])
            fields = manifest["fields"].items()
            self.fields = {name: Field(name, f["dtype"], tuple(f["shape"])) for name, f in fields}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(self.path / MANIFEST) from error

    @classmethod
    def create(
        cls, path: str | Path, fields: Sequence[Field], samples: int, shard_size: int, about: Mapping[str, Any]
    ) -> Store:
        """Make a store, or open the one that is there if it is the same.

        Parameters
        ----------
        path
            Its folder.
        fields
            What is stored of each sample.
        samples
            Number of samples.
        shard_size
            Samples in one shard of a new store; one that is there keeps its own.
        about
            Plain data: what made the samples. A store made by anything else is refused.

        Raises
        ------
        StoreError
            If the folder holds another store; the differences are named.
        """
        path = Path(path)
        plan = {
            "samples": samples,
            "shard_size": shard_size,
            "fields": {f.name: {"dtype": f.dtype, "shape": list(f.shape)} for f in fields},
            "about": dict(about),
        }
        (path / "shards").mkdir(parents=True, exist_ok=True)
        with FileLock(path / ".lock"):
            if not (path / MANIFEST).exists():
                write_json(path / MANIFEST, {**FORMAT, **plan})
            plan["shard_size"] = cls(path).shard_size
        store = cls(path)
        store.require(plan, "choose another store=..., or delete that folder", exact=True)
        return store

    def require(self, expected: Mapping[str, Any], fix: str, *, exact: bool = False) -> None:
        """Check that parts of the manifest are as expected.

        Parameters
        ----------
        expected
            Parts of the manifest.
        fix
            What to do if they differ.
        exact
            Whether the manifest must have nothing more in these parts.

        Raises
        ------
        StoreError
            Naming the differences, and the fix.
        """
        ours, theirs = dict(_flat(expected)), dict(_flat({key: self.manifest.get(key) for key in expected}))
        differing = [
            f"{key}: {theirs.get(key, 'none')} there, {ours.get(key, 'none')} now"
            for key in sorted(ours.keys() | theirs.keys() if exact else ours.keys())
            if ours.get(key) != theirs.get(key)
        ]
        if differing:
            raise StoreError.of("store", self.path, f"a store of the same ({'; '.join(differing[:6])})", fix)

    # shards

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.samples // self.shard_size)

    @property
    def left_out(self) -> dict[int, str]:
        """Samples that were left out of a complete store (``data.on_error=skip``), with the reason for each."""
        return {int(sample): why for sample, why in self.manifest.get(LEFT_OUT, {}).items()}

    def shard(self, index: int) -> Path:
        """Return the folder of one shard."""
        return self.path / "shards" / f"{index:05d}"

    def samples_of(self, index: int) -> range:
        """Return the samples of one shard."""
        return range(index * self.shard_size, min((index + 1) * self.shard_size, self.samples))

    def is_done(self, index: int) -> bool:
        """Whether a shard is written."""
        return (self.shard(index) / SHARD).is_file()

    def pending(self) -> list[int]:
        """List the shards that are not written yet."""
        return [i for i in range(self.num_shards) if not self.is_done(i)]

    def samples_to_do(self) -> int:
        """Count the samples that are not written yet."""
        return sum(len(self.samples_of(i)) for i in self.pending())

    def seal(self) -> bool:
        """Write the checksums of all shards into the manifest, once all are there; false while some are not."""
        with self._manifest_held():
            if self.manifest.get("complete"):
                return True
            if self.pending():
                return False
            for leftover in (self.path / "shards").glob(".*"):  # locks and half-written shards of killed processes
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
            notes = [read_json(self.shard(i) / SHARD) or {} for i in range(self.num_shards)]
            self.manifest |= {"complete": True, "shards": [note.get("checksum") for note in notes]}
            if left_out := {sample: why for note in notes for sample, why in note.get(LEFT_OUT, {}).items()}:
                self.manifest[LEFT_OUT] = left_out
            write_json(self.path / MANIFEST, self.manifest)
        return True

    def drop(self, index: int) -> None:
        """Remove a shard that is held, so that it is made anew."""
        with self._manifest_held():
            self.manifest = {k: v for k, v in self.manifest.items() if k not in ("complete", "shards", LEFT_OUT)}
            write_json(self.path / MANIFEST, self.manifest)
        if self.shard(index).exists():
            doomed = self.shard(index).with_name(f".{index:05d}.dropped")
            shutil.rmtree(doomed, ignore_errors=True)
            self.shard(index).rename(doomed)
            shutil.rmtree(doomed)

    @contextmanager
    def _manifest_held(self) -> Iterator[None]:
        with FileLock(self.path / ".lock"):
            self.manifest = read_json(self.path / MANIFEST) or self.manifest
            yield

    @contextmanager
    def hold(self, index: int) -> Iterator[bool]:
        """Hold a shard against other processes; gives whether no other holds it."""
        lock = FileLock(self.path / "shards" / f".{index:05d}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def repair_command(store: Store) -> str:
    """Describe the call that repairs a damaged store."""
    content, split = store.about.get("content"), store.about.get("split")
    root = store.path.parent if store.path.name == split else store.path
    return (
        "run the command that made it with repair=true, which makes damaged shards anew: python -m raptor.extract "
        f"content={content} store={root} repair=true and the same teacher and data"
    )


def _damaged(manifest: Path) -> StoreError:
    fix = "delete this file alone and run the same raptor.extract again; the shards are kept"
    return StoreError.of("manifest", manifest, "the description of a store, it is damaged", fix)


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, list(values) if isinstance(values, tuple) else values
