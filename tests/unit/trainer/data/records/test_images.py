"""Images as rows: where they may stand, what becomes of them, and the one sentence about each that cannot be used."""

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
from finetune_trainer.data.sources.resolver import HubSource, SourceResolver
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.preflight import validate_data

PIXELS = np.random.Generator(np.random.Philox(0)).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative, as in a local run."""
    monkeypatch.chdir(tmp_path)


def stored(kind: str = "png", image: Image.Image | None = None, **how: Any) -> bytes:
    content = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(content, kind, **how)
    return content.getvalue()


def write(name: str, content: str | bytes = stored()) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def records(source: str, **settings: Any) -> list[Row]:
    dataset = config.DatasetConfig.model_validate({"source": source, **settings})
    reading = SourceResolver(config.ObjectiveSpec(type="ImageClassification"), Path("cache"), Credentials())
    return list(reading.resolve(dataset, "spec.data.train[0].source").rows())


def seen(record: Row) -> np.ndarray[Any, Any]:
    return np.asarray(decode_image(record, "RGB"))


@pytest.mark.parametrize("source", ["pets", "pets/", "pets/**/*.*", "pets/*/*.PNG"])
def test_a_folder_of_folders(source: str) -> None:
    for name in ("pets/dog/b.PNG", "pets/cat/a.PNG"):
        write(name)
    write("pets/README.md", "about pets") if "*" not in source else None
    write("pets/cat/.hidden.png")
    found = records(f"file://{source}")
    assert [(one.values["label"], one.values["image"]) for one in found] == [("cat", "cat/a.PNG"), ("dog", "dog/b.PNG")]
    assert [one.origin for one in found] == ["pets/cat/a.PNG", "pets/dog/b.PNG"]
    assert all(np.array_equal(seen(one), PIXELS) for one in found)


def test_a_label_is_the_first_folder_and_no_deeper_one() -> None:
    write("pets/cat/outdoors/2024/a.png")
    [found] = records("file://pets", format="ImageFolder")
    assert found.values["label"] == "cat"
    assert np.array_equal(seen(found), PIXELS)


def rows_of(kind: str, image: Any) -> str:
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


ENCODED = base64.b64encode(stored()).decode()
NOTE = PngInfo()
NOTE.add_text("note", "a" * 300)
WITHOUT_SLASHES = base64.b64encode(stored(pnginfo=NOTE)).decode()  # for longer than the name of a file may be


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
        ("parquet", stored()),
        ("parquet", {"bytes": stored(), "path": "1.png"}),
        ("parquet", {"bytes": None, "path": "images/1.png"}),
    ],
)
def test_where_a_rows_image_may_stand(kind: str, image: Any) -> None:
    write("sets/images/1.png")
    write("elsewhere/2.png")
    [found] = records(rows_of(kind, image))
    assert found.values["label"] == "cat"
    assert np.array_equal(seen(found), PIXELS)
    validate_image(found)


def test_a_table_beside_its_images_is_not_read_as_a_folder_of_images() -> None:
    write("sets/cat/1.png")
    rows_of("jsonl", "cat/1.png")
    assert [one.origin for one in records("file://sets")] == ["sets/rows.jsonl:1"]
    assert [one.origin for one in records("file://sets", format="ImageFolder")] == ["sets/cat/1.png"]


def test_a_changed_image_changes_the_identity_of_the_rows_that_may_name_it() -> None:
    def identity() -> str:
        dataset = config.DatasetConfig(source="file://sets/rows.jsonl")
        reading = SourceResolver(config.ObjectiveSpec(type="ImageClassification"), Path("cache"), Credentials())
        return json.dumps(reading.resolve(dataset, "field").identity)

    rows_of("jsonl", "images/1.png")
    write("sets/images/1.png")
    before = identity()
    assert identity() == before
    write("sets/images/1.png", stored("png", Image.fromarray(255 - PIXELS)))
    assert identity() != before


def test_images_of_the_hub() -> None:
    write("images/1.png")
    features = datasets.Features(
        {"photo": datasets.Image(), "label": datasets.Value("int64"), "more": datasets.Value("string")}
    )
    content = {"photo": [{"bytes": stored(), "path": None}, {"bytes": None, "path": str(Path("images/1.png").absolute())}]}
    rows = datasets.Dataset.from_dict(content | {"label": [0, 1], "more": ["", ""]}, features=features)
    found = list(HubSource("hf://o/n[train]", {"image": "photo", "label": "label"}, rows).rows())
    assert [one.values["label"] for one in found] == [0, 1]
    assert all(np.array_equal(seen(one), PIXELS) for one in found)


def test_orientation_and_modes() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: up is at the right
    turned = Row({"image": stored("png", exif=exif)}, "here", {"image": "image"})
    assert np.array_equal(seen(turned), np.rot90(PIXELS, -1))
    gray = Row({"image": stored("png", Image.fromarray(PIXELS[..., 0]))}, "here", {"image": "image"})
    assert np.array_equal(seen(gray), np.repeat(PIXELS[..., :1], 3, axis=2))
    assert np.array_equal(np.asarray(decode_image(gray, "L")), PIXELS[..., 0])


REFUSED: list[tuple[str, Any, str]] = [
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
    ("parquet", stored("jpeg")[:-30], "sets/rows.parquet:1: column image is not an image that can be read (image file is"),
    ("parquet", stored()[:-60], "sets/rows.parquet:1: column image is not an image that can be read ("),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "image", "message"), REFUSED)
def test_images_that_cannot_be_used(kind: str, image: Any, message: str) -> None:
    write("sets/images/broken.png", b"not a png")
    with pytest.raises(DataError) as raised:
        seen(*records(rows_of(kind, image)))
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
        ("pets/a.md", "file://pets/a.md", {}, "pets/a.md: a plain text has no image: use"),
    ],
)
def test_folders_that_cannot_be_used(name: str, source: str, settings: dict[str, Any], message: str) -> None:
    write(name)
    with pytest.raises(DataError) as raised:
        records(source, **settings)
    assert str(raised.value).startswith(message)


def test_texts_do_not_look_for_images() -> None:
    write("mixed/a.txt", "text")
    write("mixed/b/c.png")
    text = SourceResolver(config.ObjectiveSpec(), Path("cache"), Credentials())
    found = text.resolve(config.DatasetConfig(source="file://mixed"), "field").rows()
    assert [one.origin for one in found] == ["mixed/a.txt"]
    with pytest.raises(DataError, match=r"^mixed/b/c.png: an image file has no text: use JSONLines"):
        list(text.resolve(config.DatasetConfig(source="file://mixed/b/c.png"), "field").rows())


def test_the_same_path_in_two_folders_is_two_images() -> None:
    for folder in ("train", "test"):
        write(f"{folder}/cat/1.png")
    first, other, again = (records(f"file://{folder}")[0] for folder in ("train", "test", "train"))
    assert first.subject == other.subject
    assert row_digest(first) != row_digest(other)
    assert row_digest(first) == row_digest(again)


def test_preflight_opens_every_image() -> None:
    write("pets/cat/1.png")
    write("pets/cat/2.png", stored()[:10])
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
