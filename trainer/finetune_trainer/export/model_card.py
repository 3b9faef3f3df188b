"""The model card of the exported folder, for the hub and for readers (Mitchell et al. 2019, arXiv:1810.03993)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.pipelines import SUPPORTED_TASKS

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.storage_schemes import FILE, HUB
from finetune_trainer.objectives import Objective
from finetune_trainer.objectives.model_setups.classifier import ClassifierSetup
from finetune_trainer.tracking.history import FEW_SHOT

FOLDER = "PATH/TO/THIS/FOLDER"


def write_card(folder: Path, spec: TrainSpec, objective: Objective, documents: Mapping[str, Any], reports: Path) -> None:
    """Write README.md into the folder; `huggingface_hub.ModelCard.load` reads it.

    `documents` must contain `data`, `metrics` and `report`. The card shows the plots in `reports`, a folder below `folder`.
    """
    report = documents["report"]
    metrics = {name: value for name, value in documents["metrics"].items() if math.isfinite(value)}
    library = _library(folder)
    plots = [f"![{file.stem}]({file.relative_to(folder).as_posix()})" for file in sorted(reports.glob("*.png"))]
    sections = {
        "Use": [f"```python\n{_loading_code(library, spec, objective, folder)}\n```"],
        "Results": [*_results_table(metrics, report), _capitalized(report["fit"]["sentence"])],
        "Curves": plots,
        "Data": [_yaml(documents["data"])],
        "Settings": ["All other fields have their defaults.", _yaml(_settings(spec))],
    }
    paragraphs = [f"# {_title(spec)}", _introduction(spec, report)]
    for title, content in sections.items():
        if content:
            paragraphs += [f"## {title}", *content]
    metadata = _metadata(spec, objective, metrics, library).to_yaml()
    text = "\n\n".join(paragraphs)
    (folder / "README.md").write_text(str(ModelCard(f"---\n{metadata}\n---\n\n{text}\n")))


def _metadata(spec: TrainSpec, objective: Objective, metrics: Mapping[str, float], library: str) -> ModelCardData:
    base_model = None
    relation: dict[str, Any] = {}
    if spec.model.initialization == "Pretrained":
        base_model = _hub_name(spec.model.source)
    if base_model:
        relation = {"base_model_relation": "adapter" if library == "peft" else "finetune"}
    datasets = _hub_names(source.source for source in spec.data.train)
    evaluation_datasets = _hub_names(source.source for source in spec.data.evaluation)
    if not spec.data.evaluation:
        evaluation_datasets = datasets
    evaluation_dataset = evaluation_datasets[0] if evaluation_datasets else None
    results = []
    for name, value in metrics.items():
        result = EvalResult(
            task_type=objective.model_setup.pipeline_task, dataset_type=evaluation_dataset or "custom",
            dataset_name=evaluation_dataset or "evaluation data", metric_type=name.partition("[")[0], metric_name=name,
            metric_value=round(value, 6),
        )  # fmt: skip
        results.append(result)
    metric_types = dict.fromkeys(name.partition("[")[0] for name in metrics if name != "loss")
    return ModelCardData(
        library_name=library, pipeline_tag=objective.model_setup.pipeline_task, base_model=base_model,
        datasets=datasets or None,
        metrics=list(metric_types) or None, model_name=_title(spec), eval_results=results or None, tags=["finetune-operator"],
        **relation,
    )  # fmt: skip


def _introduction(spec: TrainSpec, report: Mapping[str, Any]) -> str:
    start = f"from {spec.model.source}" if spec.model.initialization == "Pretrained" else "from random weights"
    text = f"Trained {start} for {report['steps']} steps with the objective {spec.objective.type}."
    if report["exportedStep"] != report["steps"]:
        text += f" This is the best model, from step {report['exportedStep']}."
    return "\n\n".join([text, *report.get("notes", [])])


def _loading_code(library: str, spec: TrainSpec, objective: Objective, folder: Path) -> str:
    """Python code that loads the model, or the model of each task."""
    if library == "sentence-transformers":
        lines = ["from sentence_transformers import SentenceTransformer", "", f'model = SentenceTransformer("{FOLDER}")']
    elif library == "peft":
        lines = _adapter_code(FILE.path(HUB.path(spec.model.source or "")), objective, _embeddings_of_adapter(folder))
    else:
        lines = _transformers_code(objective)
    return "\n".join(lines)


def _embeddings_of_adapter(folder: Path) -> int | None:
    """The number of embeddings of the base model with the new ones that the adapter holds; None if it holds none."""
    rows = json.loads((folder / "adapter_config.json").read_text()).get("trainable_token_indices") or {}
    return max((max(indices) + 1 for indices in rows.values()), default=None)


def _adapter_code(base: str, objective: Objective, embeddings: int | None) -> list[str]:
    """Loads the base model with the labels of the adapter's head, if it has one, and room for its new embeddings."""
    name = objective.model_setup.auto_class.__name__
    has_labels = isinstance(objective.model_setup, ClassifierSetup)
    labels = f'labels = json.load(open("{FOLDER}/training/facts.json"))["labels"]'
    options = ", id2label=dict(enumerate(labels)), ignore_mismatched_sizes=True"
    return [
        *(["import json", ""] if has_labels else []),
        "from peft import PeftModel",
        f"from transformers import {name}",
        "",
        *([labels] if has_labels else []),
        f'base = {name}.from_pretrained("{base}"{options if has_labels else ""})',
        *([f"base.resize_token_embeddings({embeddings})"] if embeddings else []),
        f'model = PeftModel.from_pretrained(base, "{FOLDER}")',
    ]


def _transformers_code(objective: Objective) -> list[str]:
    imports: set[str] = set()
    lines: list[str] = []
    for task, task_objective in objective.members.items():
        path = f"{FOLDER}/{task}" if task else FOLDER
        variable = task or "model"
        pipeline_task = task_objective.model_setup.pipeline_task
        if pipeline_task in SUPPORTED_TASKS:
            imports.add("pipeline")
            lines.append(f'{variable} = pipeline("{pipeline_task}", "{path}")')
        else:
            name = task_objective.model_setup.auto_class.__name__
            imports |= {"AutoProcessor", name}
            lines.append(f'{variable} = {name}.from_pretrained("{path}")')
            lines.append(f'processor = AutoProcessor.from_pretrained("{path}")')
    return [f"from transformers import {', '.join(sorted(imports))}", "", *lines]


def _results_table(metrics: Mapping[str, float], report: Mapping[str, Any]) -> list[str]:
    """A Markdown table of the metrics of this model and of the starting model; empty without metrics."""
    if not metrics:
        return []
    start = report.get("start", {})
    few_shot = {name.removeprefix(FEW_SHOT): value for name, value in start.items() if name.startswith(FEW_SHOT)}
    columns = {"this model": metrics, "at the start": start, "at the start, few-shot": few_shot}
    columns = {title: values for title, values in columns.items() if values}
    rows = [["on the evaluation data", *columns], ["---"] * (len(columns) + 1)]
    for name in metrics:
        cells = [f"{values[name]:.6g}" if name in values else "" for values in columns.values()]
        rows.append([name.replace("|", " "), *cells])
    return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]


def _capitalized(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def _library(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():
        return "peft"
    return "sentence-transformers" if (folder / "modules.json").exists() else "transformers"


def _title(spec: TrainSpec) -> str:
    name = spec.model.source or str(spec.model.config.get("model_type", "model"))
    return f"{name.rstrip('/').rpartition('/')[2]}, {spec.objective.type}"


def _hub_names(sources: Iterable[str]) -> list[str]:
    """The distinct names of the sources that are on the hub."""
    names = (_hub_name(source) for source in sources)
    return list(dict.fromkeys(name for name in names if name))


def _hub_name(source: str | None) -> str | None:
    """ORGANISATION/NAME of a source on the hub."""
    if not source or not HUB.matches(source):
        return None
    return "/".join(HUB.path(source).split("/")[:2])


def _settings(spec: TrainSpec) -> Any:
    return _without_credentials(spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True))


def _without_credentials(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_credentials(value) for key, value in node.items() if key != "credentials"}
    if isinstance(node, list):
        return [_without_credentials(value) for value in node]
    return node


def _yaml(content: Any) -> str:
    return f"```yaml\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)}```"
