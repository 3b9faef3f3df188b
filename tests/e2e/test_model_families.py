"""A job for each model family: reads rows from S3, stores its model there, and transformers loads the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from pydantic.alias_generators import to_camel
from tests.support import corpora
from tests.support.cluster_jobs import SECRET, Jobs, tiny
from tests.support.learning import BART, BERT, LLAMA, T5, VIT

INSTALLED_BY = "helm"
STORAGE = "s3://finetune/families/{name}"


class Family(NamedTuple):
    """The objective, the model configuration, the rows, a use of the exported folder, and a final metric."""

    objective: dict[str, Any]
    model: dict[str, Any]
    rows: list[dict[str, Any]]
    use: Callable[[Path], Any]
    metric: str


def run_pipeline(task: str, inputs: Any, **settings: Any) -> Callable[[Path], Any]:
    """A use of the exported folder: the output of a transformers pipeline for `inputs`."""

    def use(folder: Path) -> Any:
        from transformers import pipeline

        return pipeline(task, model=str(folder), device="cpu", **settings)(inputs)

    return use


def generate(folder: Path) -> Any:
    """The output of an encoder-decoder model, for which transformers has no pipeline."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)("def first", return_tensors="pt", return_token_type_ids=False)
    return AutoModelForSeq2SeqLM.from_pretrained(folder).generate(**inputs, max_new_tokens=4)[0].tolist()


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
QUESTION = [{"role": "user", "content": "May first be called from elsewhere?"}]
FAMILIES = {
    "bert": Family(
        {"type": "TokenClassification"}, BERT, corpora.tagged(10),
        run_pipeline("token-classification", "def first(items):", ignore_labels=[]), "f1",
    ),
    "roberta": Family(
        {"type": "SequenceClassification"}, {"model_type": "roberta", **SMALL, "max_position_embeddings": 144},
        corpora.by_package(20), run_pipeline("text-classification", "def a():"), "f1",
    ),
    "gpt2": Family(
        {"type": "CausalLM"}, {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
        corpora.texts(20), run_pipeline("text-generation", "def "), "perplexity",
    ),
    "llama": Family(
        {"type": "InstructionTuning"}, LLAMA, corpora.conversations(40), run_pipeline("text-generation", QUESTION), "perplexity"
    ),
    "t5": Family({"type": "Denoising"}, T5, corpora.texts(20), generate, "tokenAccuracy"),
    "bart": Family(
        {"type": "Seq2Seq", "seq2Seq": {"maxTargetLength": 12}}, BART, corpora.spelt_out()[:60], generate, "bleu"
    ),
    "vit": Family(
        {"type": "ImageClassification"}, VIT, corpora.digits(60),
        run_pipeline("image-classification", Image.new("RGB", (8, 8))), "accuracy",
    ),
}  # fmt: skip


def job(name: str, family: Family) -> dict[str, Any]:
    """A small job for a model family, with its data and its storage in S3."""
    storage = STORAGE.format(name=name)
    document = tiny(name, storage, steps=8, objective=family.objective, data={"maxLength": 128, "evaluationFraction": 0.2})
    document["spec"]["model"]["config"] = family.model
    if "image" in family.rows[0]:
        del document["spec"]["model"]["tokenizer"]
    columns = {to_camel(role): role for role in family.rows[0]}
    document["spec"]["data"]["train"] = [{"source": f"{storage}/data/*.jsonl", "credentials": SECRET, "columns": columns}]
    return document


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["vit"], id="vit"),
        pytest.param([name for name in FAMILIES if name != "vit"], id="all others", marks=pytest.mark.slow),
    ],
)
def test_trains_and_loads_each_model_family(jobs: Jobs, tmp_path: Path, names: list[str]) -> None:
    """All jobs run at the same time."""
    for name in names:
        family, storage = FAMILIES[name], STORAGE.format(name=name)
        jobs.delete_objects(storage, tmp_path)
        jobs.store(storage, tmp_path).put("data/rows.jsonl", "".join(json.dumps(row) + "\n" for row in family.rows).encode())
        jobs.apply(job(name, family))
    for name in names:
        family = FAMILIES[name]
        status = jobs.wait_for_phase(name, "Succeeded", seconds=600)
        assert status["progress"]["step"] == 8
        assert family.metric in status["metrics"]
        folder = tmp_path / name
        jobs.store(status["model"], tmp_path / "keys").download_folder(folder)
        assert family.use(folder)
