"""The preview shows what a run trains on, for every objective."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic.alias_generators import to_camel
from rich.console import Console
from tests.support import tiny

from finetune_trainer import objectives
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Layout, PackedAs
from finetune_trainer.data.loading.dataloader import BatchBuilder
from finetune_trainer.data.loading.sampler import SampledIndices
from finetune_trainer.data.preprocessing.prepare import prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models.processors import load_processor
from finetune_trainer.objectives.description import Block
from finetune_trainer.preview.prepared import preview_of
from finetune_trainer.preview.report import DataPreview
from finetune_trainer.preview.terminal import print_preview
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials

SAMPLE = 2000
ALL = None
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "runs", "away"]


def sentences(count: int) -> list[str]:
    return [f"Row {number} says: {' '.join(WORDS[: 3 + number % 9])}." for number in range(count)]


def write_rows(folder: Path, rows: Sequence[dict[str, Any]], name: str = "rows.jsonl") -> dict[str, Any]:
    """A source of the rows, whose columns have the names of their roles."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": f"file://{folder}/{name}", "columns": {to_camel(role): role for role in rows[0]}}


FAMILIES = {"MaskedLM": "bert", "NextSentence": "bert", "MultiTask": "bert", "Seq2Seq": "t5", "Denoising": "t5"}
"""The model of objectives that Llama has none for."""


def document(folder: Path, rows: Sequence[dict[str, Any]], **changes: Any) -> TrainSpec:
    objective = changes.setdefault("objective", {})
    family = FAMILIES.get(objective.get("type"), "llama")
    data = {"train": [write_rows(folder, rows)], "maxLength": 64} | changes.pop("data", {})
    model = {"config": {"model_type": family}, "tokenizer": {"train": {"vocabSize": 500}}}
    return tiny.spec(data=data, model=model, **changes)


def look(folder: Path, spec: TrainSpec, sample: int | None = SAMPLE, rows: int = 2) -> DataPreview:
    """A preview, which leaves the checkpoint storage alone: the document's one does not exist."""
    return preview_of(spec, folder / "cache", Credentials(), sample, rows)


def printed(preview: DataPreview) -> str:
    output = io.StringIO()
    print_preview(preview, "tiny", Console(file=output, width=100))
    return output.getvalue()


def read(block: Block) -> str:
    return "".join(segment.text for segment in block.segments)


def trained(block: Block) -> list[str]:
    return [segment.text for segment in block.segments if segment.trained]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("objective", ["CausalLM", "MaskedLM"])
def test_tokens_and_labels_are_those_of_a_run(objective: str, packing: bool, tmp_path: Path) -> None:
    spec = document(
        tmp_path, [{"text": text} for text in sentences(40)], objective={"type": objective}, data={"packing": packing}
    )
    shown = look(tmp_path, spec).shown
    resolver = SourceResolver(spec.objective, tmp_path / "run", Credentials())
    run = objectives.from_spec(spec, load_processor(spec, resolver))
    data = prepare(spec, run.encoder, resolver)
    layout = Layout(PackedAs.POSITIONS if packing else None, torch.float32, training=True)
    build = BatchBuilder(data.train, run.collator, layout, 0, 1, 4, spec.training.seed, pin=False)
    indices = np.array([sequence.index for sequence in shown])
    [micro_batch] = build(SampledIndices(indices, np.zeros_like(indices)))
    for row, sequence in enumerate(shown):
        tokens, labels = [], []
        for segment in (segment for block in sequence.blocks for segment in block.segments):
            tokens += segment.tokens
            labels += segment.predicted_tokens or [IGNORE_INDEX] * len(segment.tokens)
        assert micro_batch.batch.inputs["input_ids"][row, : len(tokens)].tolist() == tokens
        assert micro_batch.batch.targets["labels"][row, : len(tokens)].tolist() == labels
        assert sequence.tokens == len(tokens)


def test_packed_documents_have_their_origins_and_boundaries(tmp_path: Path) -> None:
    texts = sentences(12)
    spec = document(tmp_path, [{"text": text} for text in texts])
    preview = look(tmp_path, spec)
    assert preview.packing
    for number, row in enumerate(["rows.jsonl:1", "rows.jsonl:2"]):
        blocks = {block.origin and Path(block.origin).name: block for sequence in preview.shown for block in sequence.blocks}
        assert read(blocks[row]) == texts[number] + "<|endoftext|>"
        assert trained(blocks[row])[-1] == "<|endoftext|>"
    assert max(len(sequence.blocks) for sequence in preview.shown) > 1


def test_the_answers_of_a_conversation_are_trained_on(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Is it red?"}, {"role": "assistant", "content": "No, it is blue."}]
    rows = [{"messages": messages}, {"messages": [*messages, {"role": "user", "content": "Sure?"}, messages[1]]}]
    spec = document(tmp_path, rows, objective={"type": "InstructionTuning"}, data={"packing": False})
    first, second = look(tmp_path, spec).shown
    assert trained(first.blocks[0])[:2] == ["No, it is blue.", "<|endoftext|>"]
    assert [text for text in trained(second.blocks[0]) if "blue" in text] == ["No, it is blue."] * 2
    assert "Is it red?" in read(first.blocks[0])


def test_preferred_and_rejected_answers_are_separate(tmp_path: Path) -> None:
    spec = document(
        tmp_path, [{"prompt": "2 + 2 = ", "chosen": "4", "rejected": "5"}] * 2, objective={"type": "PreferenceTuning"}
    )
    chosen, rejected = look(tmp_path, spec).shown[0].blocks
    assert (chosen.name, trained(chosen), read(chosen)) == ("chosen", ["4", "<|endoftext|>"], "2 + 2 = 4<|endoftext|>")
    assert (rejected.name, trained(rejected)) == ("rejected", ["5", "<|endoftext|>"])


@pytest.mark.parametrize(
    ("problem", "labels", "shown"),
    [
        ("SingleLabel", ["yes", "no"], "yes"),
        ("MultiLabel", [["a", "b"], ["c"]], "a, b"),
        ("Regression", [2.5, 1.0], "2.5"),
    ],
)
def test_a_classified_text_has_its_label(problem: str, labels: list[Any], shown: str, tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in zip(sentences(2), labels, strict=True)]
    objective = {"type": "SequenceClassification", "sequenceClassification": {"problem": problem}}
    text, label = look(tmp_path, document(tmp_path, rows, objective=objective)).shown[0].blocks
    assert sentences(1)[0] in read(text)
    assert (label.name, trained(label)) == ("label", [shown])


def test_words_have_their_tags(tmp_path: Path) -> None:
    rows = [{"tokens": ["Anna", "sings"], "tags": ["B-PER", "O"]}] * 2
    [block] = look(tmp_path, document(tmp_path, rows, objective={"type": "TokenClassification"})).shown[0].blocks
    assert [segment.target for segment in block.segments if segment.trained] == ["B-PER", "O"]


def test_the_answer_to_a_question_is_marked(tmp_path: Path) -> None:
    context = "Anna sings in Bern."
    rows = [
        {"question": "Who sings?", "context": context, "answers": {"text": ["Anna"], "answer_start": [0]}},
        {"question": "Who dances?", "context": context, "answers": {"text": [], "answer_start": []}},
    ]
    answered, unanswered = look(tmp_path, document(tmp_path, rows, objective={"type": "QuestionAnswering"})).shown
    assert [text.strip() for text in trained(answered.blocks[0])] == ["Anna"]
    assert [segment.target for segment in unanswered.blocks[0].segments if segment.trained] == ["no answer"]


def test_texts_to_write_are_targets(tmp_path: Path) -> None:
    rows = [{"text": "one two", "target": "two one"}] * 2
    spec = document(tmp_path, rows, objective={"type": "Seq2Seq"})
    text, target = look(tmp_path, spec).shown[0].blocks
    assert (trained(text), read(text).startswith("one two")) == ([], True)
    assert "".join(trained(target)) == "two one<|endoftext|>"


def test_hidden_spans_are_restored_in_the_target(tmp_path: Path) -> None:
    spec = document(tmp_path, [{"text": text} for text in sentences(4)], objective={"type": "Denoising"})
    noisy, target = look(tmp_path, spec).shown[0].blocks
    assert "<extra_id_0>" in read(noisy)
    assert read(target).startswith("<extra_id_0>")
    assert "".join(trained(target)) == read(target)


def test_compared_texts_stand_next_to_each_other(tmp_path: Path) -> None:
    rows = [{"text": "a question", "text_pair": "its answer", "negative": "another answer"}] * 2
    blocks = look(tmp_path, document(tmp_path, rows, objective={"type": "TextContrastive"})).shown[0].blocks
    assert [block.name for block in blocks] == ["text", "pair", "negative"]
    assert "another answer" in read(blocks[2])


def test_pairs_of_sentences_say_whether_they_follow(tmp_path: Path) -> None:
    rows = [{"text": " ".join(sentences(4))}] * 3
    blocks = look(tmp_path, document(tmp_path, rows, objective={"type": "NextSentence"})).shown[0].blocks
    assert blocks[-1].name == "second piece follows the first"
    assert trained(blocks[-1]) in (["yes"], ["no"])


def test_rows_of_several_tasks_name_their_task(tmp_path: Path) -> None:
    labeled = [{"text": text, "label": label} for text, label in zip(sentences(2), "ab", strict=True)]
    tasks = [{"name": "kind", "type": "SequenceClassification"}, {"name": "words", "type": "MaskedLM"}]
    sources = [write_rows(tmp_path, labeled) | {"task": task} for task in ("kind", "words")]
    spec = document(tmp_path, labeled, objective={"type": "MultiTask", "tasks": tasks}, data={"train": sources})
    shown = look(tmp_path, spec, rows=1).shown
    assert [read(sequence.blocks[0]) for sequence in shown] == ["kind", "words"], "a row of each source"
    assert [block.name for block in shown[0].blocks] == ["task", "text", "label"]


@pytest.mark.parametrize("objective", ["ImageClassification", "ImageContrastive"])
def test_images_are_shown_as_the_model_gets_them(objective: str, tmp_path: Path) -> None:
    rows = []
    for label in ("red", "blue"):
        png = io.BytesIO()
        Image.new("RGB", (20, 10), label).save(png, "PNG")
        rows.append({"image": base64.b64encode(png.getvalue()).decode(), "label": label})
    if objective == "ImageContrastive":
        rows = [{"image": row["image"]} for row in rows]
    spec = tiny.spec(
        model={"config": {"model_type": "vit", "image_size": 16}, "tokenizer": None}, objective={"type": objective},
        data={"train": [write_rows(tmp_path, rows)]},
    )  # fmt: skip
    preview = look(tmp_path, spec)
    picture = preview.shown[0].blocks[0].picture
    assert picture is not None
    with Image.open(io.BytesIO(base64.b64decode(picture.png))) as image:
        assert image.size == (picture.width, picture.height) == (16, 16)
        pixel = image.getpixel((8, 8))
    assert preview.collated is None
    if objective == "ImageClassification":
        assert pixel == (255, 0, 0)
        assert trained(preview.shown[0].blocks[1]) == ["red"]


def test_a_sample_reads_the_first_rows_of_each_source(tmp_path: Path) -> None:
    long = write_rows(tmp_path, [{"text": text} for text in sentences(50)])
    short = write_rows(tmp_path, [{"text": text} for text in sentences(5)], "short.jsonl")
    data = {"train": [short, long], "packing": False}
    spec = document(tmp_path, [{"text": "a"}], data=data, training={"maxSteps": None, "epochs": 2})
    write_rows(tmp_path, [{"text": text} for text in sentences(50)])
    sampled, whole = look(tmp_path, spec, sample=20), look(tmp_path, spec, ALL)
    assert (sampled.train.documents, whole.train.documents) == (25, 55)
    assert [(source.field, source.rows, source.total) for source in sampled.sampled] == [("data.train[1]", 20, 50)]
    assert (sampled.run.is_estimate, sampled.run.is_lower_bound) == (True, False)
    assert sampled.run.steps == whole.run.steps == 14, "each row is a sequence"
    assert sampled.coverage == "the first 20 rows of data.train[1] and all other rows"
    assert (whole.sampled, whole.coverage, whole.run.is_estimate) == ([], "all rows", False)
    assert any("the tokenizer was trained on the rows that were read" in warning for warning in sampled.warnings)


def test_a_small_source_is_prepared_once_for_the_preview_and_the_run(tmp_path: Path) -> None:
    spec = document(tmp_path, [{"text": text} for text in sentences(9)])
    assert look(tmp_path, spec) == look(tmp_path, spec, ALL)
    assert len(list((tmp_path / "cache/prepared").glob("*/report.json"))) == 1


def test_all_rows_are_read_if_the_first_have_one_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": text, "label": "neg" if number < 30 else "pos"} for number, text in enumerate(sentences(60))]
    preview = look(tmp_path, document(tmp_path, rows, objective={"type": "SequenceClassification"}), sample=10)
    assert preview.train.labels == {"neg": 0.5, "pos": 0.5}
    assert "the first rows are not enough, so all rows are read" in capsys.readouterr().err


def test_an_unusable_row_is_an_error_as_in_a_run(tmp_path: Path) -> None:
    spec = document(tmp_path, [{"text": "fine"}, {"text": 7}])
    with pytest.raises(DataError, match=r"rows.jsonl:2: column text is a int"):
        look(tmp_path, spec)


def test_says_if_no_text_ends(tmp_path: Path) -> None:
    spec = document(tmp_path, [{"text": " ".join(WORDS * 30)}] * 3, data={"overlong": "Truncate", "maxLength": 16})
    preview = look(tmp_path, spec)
    assert preview.train.truncated_documents == 3
    [warning] = [warning for warning in preview.warnings if "does not learn where to stop" in warning]
    assert "end the texts with <|endoftext|>" in warning


def test_weights_show_how_often_rows_are_seen(tmp_path: Path) -> None:
    texts = [{"text": text} for text in sentences(40)]
    sources = [write_rows(tmp_path, texts[:10], "few.jsonl"), write_rows(tmp_path, texts[10:], "many.jsonl")]
    train = [sources[0] | {"weight": 3.0}, sources[1] | {"weight": 1.0}]
    spec = document(tmp_path, texts, data={"train": train, "packing": False})
    shares = look(tmp_path, spec).shares
    assert [(share.sequences, share.seen_per_epoch) for share in shares] == [(10, 30), (30, 10)]
    assert "data.train[0]   75.0% of an epoch; 10 sequences, each 3.00 times" in printed(look(tmp_path, spec))


def test_sequences_longer_than_the_model_are_an_error_as_in_a_run(tmp_path: Path) -> None:
    spec = document(tmp_path, [{"text": text} for text in sentences(4)])
    model = spec.model.model_copy(update={"config": {"model_type": "gpt2", "n_positions": 32}})
    with pytest.raises(ConfigurationError, match=r"spec\.data\.maxLength: 64 is more than the 32 positions of this gpt2"):
        look(tmp_path, spec.model_copy(update={"model": model}))


def test_packing_is_off_where_a_run_turns_it_off(tmp_path: Path) -> None:
    spec = document(tmp_path, [{"text": text} for text in sentences(4)], objective={"type": "MaskedLM"})
    model = spec.model.model_copy(update={"config": {"model_type": "roberta", "num_hidden_layers": 2}})
    preview = look(tmp_path, spec.model_copy(update={"model": model}))
    assert not preview.packing
    assert [len(sequence.blocks) for sequence in preview.shown] == [1, 1]
    assert any("attends across the documents of a packed row" in warning for warning in preview.warnings)


def test_a_metric_of_an_unknown_label_is_an_error_as_in_a_run(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in zip(sentences(2), ["yes", "no"], strict=True)]
    data = {"evaluation": [write_rows(tmp_path, rows)]}
    spec = document(tmp_path, rows, objective={"type": "SequenceClassification"}, data=data, evaluation={"metric": "f1[maybe]"})
    with pytest.raises(ConfigurationError, match=r"spec\.evaluation\.metric: f1\[maybe\] is not reported"):
        look(tmp_path, spec)
