from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from raptor.data.digits import Digits
from raptor.data.sources import Cached
from raptor.data.store.layout import Field, Store
from raptor.data.store.reading import Reader
from raptor.data.store.writing import ShardWriter, verify
from raptor.errors import StoreError
from raptor.extraction.fill import fill
from raptor.extraction.plan import Extraction, layers, pixels
from raptor.models.teacher import Teacher, freeze
from raptor.models.vit import ViTSpec

FIELDS = [
    Field("a", "float32", (3, 2)),
    Field("b", "bfloat16", (5,)),
    Field("c", "float16", (1,)),
    Field("label", "int64", ()),
]


def batch(samples: range) -> dict[str, torch.Tensor]:
    n = torch.tensor(list(samples), dtype=torch.float32)
    return {
        "a": n[:, None, None] + torch.arange(6).view(3, 2) / 8,
        "b": n[:, None].expand(-1, 5).bfloat16(),
        "c": (-n[:, None]).half(),
        "label": n.long(),
    }


def make_store(path: Path, samples: int = 23, shard_size: int = 5) -> Store:
    store = Store.create(path, FIELDS, samples, shard_size, {"content": "test", "teacher": {"sha256": "x"}})
    for shard in store.pending():
        with ShardWriter(store, shard) as writer:
            whole = store.samples_of(shard)
            writer.add(batch(whole[:2]))
            if whole[2:]:
                writer.add(batch(whole[2:]))
            writer.commit()
    assert store.seal()
    return store


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    samples = [22, 0, 7, 7, 13, 4]
    a, b, c, label = Reader(tmp_path / "s").read(samples, ["a", "b", "c", "label"])
    expected = batch(range(23))
    assert torch.equal(a, expected["a"][samples]) and a.dtype == torch.float32
    assert torch.equal(b, expected["b"][samples]) and b.dtype == torch.bfloat16
    assert torch.equal(c, expected["c"][samples]) and c.dtype == torch.float16
    assert label.tolist() == samples


def test_a_batch_that_somebody_holds_is_not_overwritten(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    reader, expected = Reader(tmp_path / "s"), batch(range(23))
    (kept,) = reader.read([1, 2, 3], ["a"])
    view = reader.read([4, 5, 6], ["a"])[0].flatten()[:6]  # all that is left of a batch
    weight = torch.ones(2, requires_grad=True)
    loss = (reader.read([7, 8, 9], ["a"])[0] @ weight).sum()  # held by the graph alone
    addresses = {reader.read([i, i, i], ["a"])[0].data_ptr() for i in range(10, 20)}
    assert len(addresses) == 1, "memory that nobody holds is used again"
    assert torch.equal(kept, expected["a"][[1, 2, 3]])
    assert torch.equal(view, expected["a"][4].flatten())
    loss.backward()
    torch.testing.assert_close(weight.grad, expected["a"][[7, 8, 9]].sum((0, 1)))


def test_shards_can_be_memory_mapped_by_anyone(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    mapped = np.memmap(tmp_path / "s/shards/00001/a.bin", dtype=np.float32, mode="r").reshape(-1, 3, 2)
    assert np.array_equal(mapped, batch(range(5, 10))["a"].numpy())


def test_an_incomplete_store_is_not_read_and_continues(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    before = tree(tmp_path / "s")
    store.drop(2)
    with pytest.raises(StoreError, match="1 of 5 shards are missing"):
        Reader(tmp_path / "s")
    assert not store.seal()
    make_store(tmp_path / "s")
    assert tree(tmp_path / "s") == before


def test_another_store_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    with pytest.raises(StoreError, match=r"about\.teacher\.sha256: x there, y now"):
        Store.create(tmp_path / "s", FIELDS, 23, 5, {"content": "test", "teacher": {"sha256": "y"}})
    with pytest.raises(StoreError, match=r"fields\.b\.dtype: bfloat16 there, none now"):
        Store.create(tmp_path / "s", FIELDS[:1], 23, 5, {"content": "test", "teacher": {"sha256": "x"}})
    with pytest.raises(StoreError, match="expected a store"):
        Store(tmp_path / "nowhere")
    (tmp_path / "s" / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path / "s")


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_verify_names_every_damaged_shard(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", samples=50)
    assert list(verify(store)) == []
    shard = store.shard
    flip(shard(1) / "b.bin", 13)
    flip(shard(3) / "checksums.npy", -1)
    (shard(4) / "a.bin").write_bytes((shard(4) / "a.bin").read_bytes()[:-1])
    with (shard(5) / "a.bin").open("ab") as file:
        file.write(b"x")
    shutil.rmtree(shard(6))
    (shard(7) / "c.bin").unlink()
    flip(shard(8) / "shard.json", 20)
    problems = dict(verify(Store(tmp_path / "s")))
    assert problems.keys() == {1, 3, 4, 5, 6, 7, 8}
    assert "b.bin has changed since it was written (its sample 1)" in problems[1]
    assert "119 bytes instead of 120" in problems[4]
    assert "missing" in problems[6] and "c.bin is missing" in problems[7]
    for number in problems:
        store.drop(number)
    make_store(tmp_path / "s", samples=50)
    assert list(verify(Store(tmp_path / "s"))) == []


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda shard: flip(shard / "a.bin", 30), r"a\.bin has changed .*\(its sample 1\).*repair=true"),
        (lambda shard: (shard / "a.bin").write_bytes(b""), "truncated"),
        (lambda shard: (shard / "a.bin").unlink(), "cannot be opened"),
        (lambda shard: flip(shard / "checksums.npy", -9), "checksums"),
    ],
)
def test_reading_finds_damage_when_it_touches_it(tmp_path: Path, harm, message: str) -> None:  # type: ignore[no-untyped-def]
    store = make_store(tmp_path / "s")
    harm(store.shard(2))
    reader = Reader(tmp_path / "s")
    reader.read([0, 9, 22], ["a", "label"])
    with pytest.raises(StoreError, match=message):
        reader.read([0, 11], ["a"])


def test_a_shard_with_too_few_samples_is_not_committed(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", FIELDS, 23, 5, {})
    with pytest.raises(ValueError, match="expected 5 of each field"), ShardWriter(store, 0) as writer:
        writer.add(batch(range(4)))
        writer.commit()
    assert store.pending() == [0, 1, 2, 3, 4]
    assert not list((tmp_path / "s" / "shards").iterdir())


@pytest.fixture
def extraction(teacher: Teacher, tmp_path: Path) -> Extraction:
    data = Digits(batch_size=8)
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    return layers(tmp_path / "s", data, "train", freeze(teacher), [0, 2, 4], "float32", "32-true")


def test_extraction_killed_at_random_moments_ends_as_if_it_had_not_been(extraction: Extraction, tmp_path: Path) -> None:
    whole = Extraction(**{**vars(extraction), "folder": tmp_path / "whole"})
    begin = time.monotonic()
    assert fill(whole, whole.open(60), 0, lambda n: None) == 1437
    span = time.monotonic() - begin
    assert whole.open(60).seal()
    chance, kills = random.Random(0), 0
    while kills < 20:
        child = os.fork()
        if child == 0:
            fill(extraction, extraction.open(60), 0, lambda n: None)
            os._exit(0)
        time.sleep(chance.random() * span / 10)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            kills += 1
        else:  # it had finished before
            assert status == 0
            shutil.rmtree(tmp_path / "s")
    fill(extraction, extraction.open(60), 0, lambda n: None)
    assert extraction.open(60).seal()
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_several_processes_fill_disjoint_shards(extraction: Extraction) -> None:
    children = []
    for first in (0, 7, 14):
        child = os.fork()
        if child == 0:
            written = fill(extraction, extraction.open(60), first, lambda n: None)
            (extraction.folder / f"written-{first}").write_text(str(written))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    written = [int((extraction.folder / f"written-{first}").read_text()) for first in (0, 7, 14)]
    assert sum(written) == 1437, "each sample is written by one process"
    assert extraction.open(60).seal()
    assert list(verify(extraction.open(60))) == []


def test_any_number_of_shards_with_few_open_files(extraction: Extraction) -> None:
    child = os.fork()
    if child == 0:
        held = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (held + 40, held + 40))
        fill(extraction, extraction.open(16), 0, lambda n: None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert extraction.open(16).seal()


def test_many_processes_may_seal_one_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    (tmp_path / "s" / "manifest.json").write_text(json.dumps({**store.manifest, "complete": False}))
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(20):
                assert Store(tmp_path / "s").seal()
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert list(verify(Store(tmp_path / "s"))) == []


def test_a_damaged_manifest_is_written_again_and_keeps_the_shards(tmp_path: Path) -> None:
    before = tree(make_store(tmp_path / "s").path)
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("shard_size", "shard_sixe"))
    with pytest.raises(StoreError, match="delete this file alone"):
        Store(tmp_path / "s")
    manifest.unlink()
    make_store(tmp_path / "s")
    assert tree(tmp_path / "s") == before


def test_stored_layers_are_those_that_the_teacher_gives_in_training_batches(extraction: Extraction) -> None:
    store = extraction.open(100)
    fill(extraction, store, 0, lambda n: None)
    store.seal()
    chosen = torch.randperm(1437)[:8].tolist()
    images = torch.stack([extraction.images[i][0] for i in chosen])
    expected = extraction.make(images)
    read = Reader(extraction.folder).read(chosen, ["layer00", "layer02", "layer04"])
    for name, values in zip(("layer00", "layer02", "layer04"), read, strict=True):
        assert torch.equal(values, expected[name])


def test_a_store_of_another_teacher_transform_or_layers_is_refused(extraction: Extraction, teacher: Teacher) -> None:
    store, data = extraction.open(1000), extraction.data
    fill(extraction, store, 0, lambda n: None)
    store.seal()
    source = Cached(extraction.folder)
    source.connect(data, teacher, [0, 2])
    assert data.substitutes["train"].layers == [0, 2]
    with pytest.raises(StoreError, match=r"the layers 0\.\.2, of which 1 are missing \(it has 0, 2, 4\)"):
        source.connect(data, teacher, [0, 1, 2])
    teacher.shell.vit.norm.weight.data += 1  # the activations do not depend on the final norm
    source.connect(data, teacher, [0, 2])
    teacher.blocks[1].mlp.fc1.weight.data[0, 0] += 1
    with pytest.raises(StoreError, match=r"about\.teacher\.sha256"):
        source.connect(data, teacher, [0, 2])
    teacher.blocks[1].mlp.fc1.weight.data[0, 0] -= 1
    other = ViTSpec(teacher.spec.name, {**teacher.spec.options, "num_heads": 1}, teacher.spec.mean, teacher.spec.std)
    with pytest.raises(StoreError, match=r"about\.teacher\.options\.num_heads: 2 there, 1 now"):
        source.connect(data, Teacher(other), [0, 2])
    data.prepare((1, 16, 16), teacher.spec.mean, teacher.spec.std)
    with pytest.raises(StoreError, match=r"about\.transform\.size: \[8, 8\] there, \[16, 16\] now"):
        source.connect(data, teacher, [0, 2])
    with pytest.raises(StoreError, match="expected a store"):
        Cached(extraction.folder / "nowhere").connect(data, teacher, [0])


def test_the_pixel_cache_is_exact(tmp_path: Path) -> None:
    plain, cached = Digits(), Digits(pixels=tmp_path / "cache")
    plain.prepare((3, 12, 12), [0.5] * 3, [0.5] * 3)
    for split in ("train", "val"):
        job = pixels(tmp_path / "cache" / split, plain, split)
        fill(job, job.open(100), 0, lambda n: None)
        job.open(100).seal()
    cached.prepare((3, 12, 12), [0.5] * 3, [0.5] * 3)
    for split in ("train", "val"):
        ours, theirs = cached.images(split), plain.images(split)
        assert len(ours) == len(theirs)
        for i in (0, 101, 359):
            assert torch.equal(ours[i][0], theirs[i][0]) and ours[i][1] == theirs[i][1]
    assert cached.describe(cached.images("train")) == plain.describe(plain.images("train"))
    with pytest.raises(StoreError, match=r"transform\.channels: 3 there, 1 now"):
        cached.prepare((1, 12, 12), [0.5], [0.5])
