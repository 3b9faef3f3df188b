"""Data and models on a real S3 server: copied once, reused from the cache, and copied again after a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support import corpora
from tests.support.s3 import Server

from finetune_trainer import config
from finetune_trainer.data.records.images import decode_image
from finetune_trainer.data.sources.base import Source
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import localize, localize_model
from finetune_trainer.storage.registry import open_storage


@pytest.fixture
def bucket(s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URI of a new folder with some files."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    uri = s3_server.uri(f"sources/{tmp_path.name}")
    storage = open_storage(uri, Credentials())
    for name in ("data/b.txt", "data/a.txt", "data/deep/c.txt", "data/.hidden.txt", "other/d.txt", "config.json"):
        storage.put(name, name.encode())
    return uri


def find(uri: str, cache: Path) -> Source:
    dataset = config.DatasetConfig(source=uri)
    return SourceResolver(config.ObjectiveSpec(), cache, Credentials()).resolve(dataset, "spec.data.train[0].source")


def read(uri: str, cache: Path) -> list[tuple[str, str]]:
    return [(row.values["text"], row.origin.rpartition("/data/")[2]) for row in find(uri, cache).rows()]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("data", ["a.txt", "b.txt", "deep/c.txt"]),
        ("data/", ["a.txt", "b.txt", "deep/c.txt"]),
        ("data/b.txt", ["b.txt"]),
        ("data/*.txt", ["a.txt", "b.txt"]),
        ("data/**/*.txt", ["a.txt", "b.txt", "deep/c.txt"]),
        ("*/deep/c.txt", ["deep/c.txt"]),
    ],
)
def test_reads_files_folders_and_patterns(bucket: str, path: str, names: list[str], tmp_path: Path) -> None:
    assert read(f"{bucket}/{path}", tmp_path) == [(f"data/{name}", name) for name in names]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", " does not exist: correct the address or put the data there"),
        ("data/*.csv", " matches no file: correct the pattern"),
    ],
)
def test_rejects_addresses_without_files(bucket: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read(f"{bucket}/{path}", tmp_path)
    assert str(raised.value).startswith(f"spec.data.train[0].source: {bucket}/{path}{message}")


@pytest.mark.parametrize(
    ("path", "name"),
    [("pets", "cat/a.png"), ("pets/*/*.png", "cat/a.png"), ("tables/rows.jsonl", "images/b.png"), ("tables", "images/b.png")],
)
def test_copies_images_that_rows_refer_to(bucket: str, path: str, name: str, tmp_path: Path) -> None:
    storage = open_storage(bucket, Credentials())
    for image in ("pets/cat/a.png", "tables/images/b.png"):
        storage.put(image, corpora.png(Image.new("RGB", (3, 2), "red")))
    storage.put("tables/rows.jsonl", b'{"image": "images/b.png", "label": "cat"}')
    resolver = SourceResolver(config.ObjectiveSpec(type="ImageClassification"), tmp_path, Credentials())
    [row] = resolver.resolve(config.DatasetConfig(source=f"{bucket}/{path}"), "spec.data.train[0].source").rows()
    assert row.values == {"image": name, "label": "cat"}
    assert decode_image(row, "RGB").getpixel((2, 1)) == (255, 0, 0)
    assert list(tmp_path.glob("sources/*/*.txt")) == [], "other files are not copied"


def test_copies_a_file_again_only_after_a_change(bucket: str, tmp_path: Path) -> None:
    read(f"{bucket}/data/a.txt", tmp_path)
    (first,) = tmp_path.glob("sources/*/a.txt")
    first.write_text("from the cache")
    assert read(f"{bucket}/data/a.txt", tmp_path) == [("from the cache", "a.txt")]
    before = find(f"{bucket}/data/a.txt", tmp_path).identity
    open_storage(bucket, Credentials()).put("data/a.txt", b"equal size")
    assert read(f"{bucket}/data/a.txt", tmp_path) == [("equal size", "a.txt")]
    assert find(f"{bucket}/data/a.txt", tmp_path).identity != before


def localize_here(uri: str, cache: Path, patterns: list[str] | None = None, **settings: Any) -> Path:
    return localize(
        uri, cache=cache, credentials=Credentials(), secret=None, field="spec.model.source", patterns=patterns, **settings
    )


def test_copies_the_requested_files_of_a_model(bucket: str, tmp_path: Path) -> None:
    folder = localize_here(bucket, tmp_path, ["*.json", "data/deep/*"])
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == ["config.json", "data/deep/c.txt"]
    assert localize_here(bucket, tmp_path, ["*.json", "data/deep/*"]) == folder


def test_copies_pickled_weights_only_without_safetensors(bucket: str, tmp_path: Path) -> None:
    storage = open_storage(bucket, Credentials())
    for name in ("old/config.json", "old/pytorch_model.bin", "both/pytorch_model.bin", "both/model.safetensors"):
        storage.put(name, name.encode())
    found = {
        name: {file.name for file in localize_model(
            f"{bucket}/{name}", cache=tmp_path, credentials=Credentials(), secret=None, field="spec.model.source"
        ).iterdir()}
        for name in ("old", "both")
    }  # fmt: skip
    assert found == {"old": {"config.json", "pytorch_model.bin"}, "both": {"model.safetensors"}}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere", "there is nothing to use at {uri} (it is empty): correct the URI, or upload the files"),
        ("/data", "there is nothing to use at {uri} (none of its 4 files matches *.json): correct the URI"),
    ],
)
def test_rejects_a_missing_model(bucket: str, path: str, message: str, tmp_path: Path) -> None:
    uri = f"{bucket}{path}"
    with pytest.raises(ConfigurationError) as raised:
        localize_here(uri, tmp_path, ["*.json"])
    assert str(raised.value).startswith(f"spec.model.source: {message.format(uri=uri)}")


def test_local_files_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert localize_here(f"file://{tmp_path}/model", tmp_path) == tmp_path / "model"
    assert localize_here("file://./model", tmp_path) == localize_here("file://model", tmp_path) == Path("model")
    with pytest.raises(ConfigurationError, match=r"^spec.model.source: pvc://claim/model does not exist"):
        localize_here("pvc://claim/model", tmp_path)
