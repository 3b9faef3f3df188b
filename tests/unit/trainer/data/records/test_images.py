"""Images in rows: the supported locations, decoding, and the error for each image that cannot be used."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from finetune_trainer import config
from finetune_trainer.data.records.digests import row_digest
from finetune_trainer.data.records.images import decode_image, validate_image
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.hub_source import HubSource
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.data.sources.row_source import RowSource
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.preflight import validate_data

PIXELS = np.random.Generator(np.random.Philox(0)).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths, as in a local run."""
    monkeypatch.chdir(tmp_path)


def encode_image(kind: str = "png", image: Image.Image | None = None, **how: Any) -> bytes:
    content = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(content, kind, **how)
    return content.getvalue()


def write(name: str, content: str | bytes = encode_image()) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_rows(source: str, **settings: Any) -> list[Row]:
    dataset = config.DatasetConfig.model_validate({"source": source, **settings})
    resolver = SourceResolver(config.ObjectiveSpec(type="ImageClassification"), Path("cache"), Credentials())
    return list(resolver.resolve(dataset, "spec.data.train[0].source").rows())


def pixels(row: Row) -> np.ndarray[Any, Any]:
    return np.asarray(decode_image(row, "RGB"))


@pytest.mark.parametrize("source", ["pets", "pets/", "pets/**/*.*", "pets/*/*.PNG"])
def test_reads_a_folder_per_label(source: str) -> None:
    for name in ("pets/dog/b.PNG", "pets/cat/a.PNG"):
        write(name)
    write("pets/README.md", "about pets") if "*" not in source else None
    write("pets/cat/.hidden.png")
    rows = read_rows(f"file://{source}")
    assert [(row.values["label"], row.values["image"]) for row in rows] == [("cat", "cat/a.PNG"), ("dog", "dog/b.PNG")]
    assert [row.origin for row in rows] == ["pets/cat/a.PNG", "pets/dog/b.PNG"]
    assert all(np.array_equal(pixels(row), PIXELS) for row in rows)


def test_label_is_the_first_folder_level() -> None:
    write("pets/cat/outdoors/2024/a.png")
    [row] = read_rows("file://pets", format="ImageFolder")
    assert row.values["label"] == "cat"
    assert np.array_equal(pixels(row), PIXELS)


def write_row(kind: str, image: Any) -> str:
    row = {"image": image, "label": "cat"}
    match kind:
        case "jsonl":
            write("sets/rows.jsonl", json.dumps(row) + "\n")
        case "csv":
            write("sets/rows.csv", f'image,label\n"{image}",cat\n')
        case "parquet":
            Path("sets").mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist([row]), "sets/rows.parquet")
    return f"file://sets/rows.{kind}"


ENCODED = base64.b64encode(encode_image()).decode()
NOTE = PngInfo()
NOTE.add_text("note", "a" * 300)
WITHOUT_SLASHES = base64.b64encode(encode_image(pnginfo=NOTE)).decode()  # has no slash within the longest file name


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("jsonl", "images/1.png"),
        ("jsonl", "../elsewhere/2.png"),
        ("jsonl", ENCODED),
        ("jsonl", WITHOUT_SLASHES),
        ("jsonl", f"data:image/png;base64,{ENCODED}"),
        ("csv", "images/1.png"),
        ("csv", ENCODED),
        ("parquet", "images/1.png"),
        ("parquet", encode_image()),
        ("parquet", {"bytes": encode_image(), "path": "1.png"}),
        ("parquet", {"bytes": None, "path": "images/1.png"}),
    ],
)
def test_reads_an_image_from_each_supported_location(kind: str, image: Any) -> None:
    write("sets/images/1.png")
    write("elsewhere/2.png")
    [row] = read_rows(write_row(kind, image))
    assert row.values["label"] == "cat"
    assert np.array_equal(pixels(row), PIXELS)
    validate_image(row)


def test_a_folder_with_a_table_and_images_is_read_as_a_table() -> None:
    write("sets/cat/1.png")
    write_row("jsonl", "cat/1.png")
    assert [row.origin for row in read_rows("file://sets")] == ["sets/rows.jsonl:1"]
    assert [row.origin for row in read_rows("file://sets", format="ImageFolder")] == ["sets/cat/1.png"]


def test_identity_changes_with_an_attached_image() -> None:
    def identity() -> str:
        dataset = config.DatasetConfig(source="file://sets/rows.jsonl")
        resolver = SourceResolver(config.ObjectiveSpec(type="ImageClassification"), Path("cache"), Credentials())
        return json.dumps(resolver.resolve(dataset, "field").identity)

    write_row("jsonl", "images/1.png")
    write("sets/images/1.png")
    before = identity()
    assert identity() == before
    write("sets/images/1.png", encode_image("png", Image.fromarray(255 - PIXELS)))
    assert identity() != before


def test_reads_images_of_a_hub_dataset() -> None:
    write("images/1.png")
    features = datasets.Features(
        {"photo": datasets.Image(), "label": datasets.Value("int64"), "more": datasets.Value("string")}
    )
    content = {
        "photo": [{"bytes": encode_image(), "path": None}, {"bytes": None, "path": str(Path("images/1.png").absolute())}]
    }
    dataset = datasets.Dataset.from_dict(content | {"label": [0, 1], "more": ["", ""]}, features=features)
    rows = list(RowSource(HubSource("hf://o/n[train]", dataset, ReadOptions()), {"image": "photo", "label": "label"}).rows())
    assert [row.values["label"] for row in rows] == [0, 1]
    assert all(np.array_equal(pixels(row), PIXELS) for row in rows)


def test_applies_orientation_and_converts_modes() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated: the top is on the right
    turned = Row({"image": encode_image("png", exif=exif)}, "here", {"image": "image"})
    assert np.array_equal(pixels(turned), np.rot90(PIXELS, -1))
    gray = Row({"image": encode_image("png", Image.fromarray(PIXELS[..., 0]))}, "here", {"image": "image"})
    assert np.array_equal(pixels(gray), np.repeat(PIXELS[..., :1], 3, axis=2))
    assert np.array_equal(np.asarray(decode_image(gray, "L")), PIXELS[..., 0])


INVALID_IMAGES: list[tuple[str, Any, str]] = [
    (
        "jsonl",
        "images/2.png",
        "sets/rows.jsonl:1: column image names images/2.png, and there is no such file in sets/images: correct the path",
    ),
    ("jsonl", "not base64!", "sets/rows.jsonl:1: column image is 'not base64!', neither a file nor base64 ("),
    ("jsonl", None, "sets/rows.jsonl:1: column image is null, not an image: give a path, base64 or bytes, or remove the row"),
    ("jsonl", 7, "sets/rows.jsonl:1: column image is a int, not an image"),
    ("csv", "", "sets/rows.csv:2: column image is empty, not an image"),
    (
        "jsonl",
        "images/broken.png",
        "sets/rows.jsonl:1: column image names broken.png, which is not an image that can be read (of no known kind): replace",
    ),
    ("parquet", b"GIF", "sets/rows.parquet:1: column image is not an image that can be read (of no known kind): replace it"),
    ("parquet", {"bytes": None, "path": None}, "sets/rows.parquet:1: column image is empty, not an image"),
    (
        "parquet",
        encode_image("jpeg")[:-30],
        "sets/rows.parquet:1: column image is not an image that can be read (image file is",
    ),
    ("parquet", encode_image()[:-60], "sets/rows.parquet:1: column image is not an image that can be read ("),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "image", "message"), INVALID_IMAGES)
def test_rejects_unusable_images(kind: str, image: Any, message: str) -> None:
    write("sets/images/broken.png", b"not a png")
    with pytest.raises(DataError) as raised:
        pixels(*read_rows(write_row(kind, image)))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "source", "settings", "message"),
    [
        (
            "pets/a.png",
            "file://pets",
            {},
            "pets/a.png: the image is in no sub-folder that would be its label: move it into one",
        ),
        ("pets/a.png", "file://pets/a.png", {}, "pets/a.png: the image is in no sub-folder"),
        ("pets/a.md", "file://pets", {}, "spec.data.train[0].source: file://pets holds no file that ends with .jsonl, "),
        ("pets/a.jsonl", "file://pets", {"format": "ImageFolder"}, "spec.data.train[0].source: file://pets holds no file that"),
        ("pets/a.md", "file://pets/a.md", {}, "pets/a.md: a plain text has no column image: set format"),
    ],
)
def test_rejects_unusable_image_folders(name: str, source: str, settings: dict[str, Any], message: str) -> None:
    write(name)
    with pytest.raises(DataError) as raised:
        read_rows(source, **settings)
    assert str(raised.value).startswith(message)


def test_text_objectives_skip_images() -> None:
    write("mixed/a.txt", "text")
    write("mixed/b/c.png")
    text_resolver = SourceResolver(config.ObjectiveSpec(), Path("cache"), Credentials())
    rows = text_resolver.resolve(config.DatasetConfig(source="file://mixed"), "field").rows()
    assert [row.origin for row in rows] == ["mixed/a.txt"]
    with pytest.raises(DataError, match=r"^mixed/b/c.png: an image file has no column text: set format"):
        list(text_resolver.resolve(config.DatasetConfig(source="file://mixed/b/c.png"), "field").rows())


def test_equal_paths_in_two_folders_are_different_images() -> None:
    for folder in ("train", "test"):
        write(f"{folder}/cat/1.png")
    first, other, again = (read_rows(f"file://{folder}")[0] for folder in ("train", "test", "train"))
    assert first.subject == other.subject
    assert row_digest(first) != row_digest(other)
    assert row_digest(first) == row_digest(again)


def test_preflight_opens_every_image() -> None:
    write("pets/cat/1.png")
    write("pets/cat/2.png", encode_image()[:10])
    spec = config.TrainSpec.model_validate(
        {
            "model": {"source": "hf://o/n"},
            "data": {"train": [{"source": "file://pets"}]},
            "objective": {"type": "ImageClassification"},
            "checkpoint": {"storage": "file://storage"},
        }
    )
    with pytest.raises(DataError, match=r"^pets/cat/2.png: column image names 2.png, which is not an image that can be read"):
        validate_data(spec, Credentials(), Path("cache"))
    write("pets/cat/2.png")
    assert validate_data(spec, Credentials(), Path("cache")) == 2
