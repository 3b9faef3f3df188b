"""The model card: what the hub and a reader want to know of the exported folder (Mitchell et al. 2019, arXiv:1810.03993)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.pipelines import SUPPORTED_TASKS

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.storage_schemes import HUB
from finetune_trainer.objectives import Objective
from finetune_trainer.training.evaluation import FEW_SHOT


def write_card(folder: Path, spec: TrainSpec, objective: Objective, documents: Mapping[str, Any], reports: Path) -> None:
    """Writes the folder's README.md; `documents` are those of `reports`, a folder below it, whose pictures are shown.

    It is read by `huggingface_hub.ModelCard.load`. Of the documents it needs `data`, `metrics` and `report`.
    """
    metrics = {name: value for name, value in documents["metrics"].items() if math.isfinite(value)}
    library = _library(folder)
    parts = {
        "": [f"# {_title(spec)}", _introduction(spec, documents["report"])],
        "Use": [f"```python\n{chr(10).join(_loading(folder, library, spec, objective))}\n```"],
        "Results": list(_results(metrics, documents["report"])),
        "Curves": [f"![{file.stem}]({file.relative_to(folder).as_posix()})" for file in sorted(reports.glob("*.png"))],
        "Data": [_yaml(documents["data"])],
        "Settings": ["Everything else was left at its default.", _yaml(_settings(spec))],
    }
    text = "\n\n".join("\n\n".join([f"## {title}"] * bool(title) + lines) for title, lines in parts.items() if lines)
    front = _front_matter(spec, objective, metrics, library)
    (folder / "README.md").write_text(str(ModelCard(f"---\n{front.to_yaml()}\n---\n\n{text}\n")))


def _front_matter(spec: TrainSpec, objective: Objective, metrics: Mapping[str, float], library: str) -> ModelCardData:
    datasets = list(dict.fromkeys(filter(None, (_hub_name(source.source) for source in spec.data.train))))
    base = _hub_name(spec.model.source) if spec.model.initialization == "Pretrained" else None
    of_hub = next(filter(None, (_hub_name(source.source) for source in spec.data.evaluation)), None)
    held_out = of_hub or (datasets[0] if datasets and not spec.data.evaluation else None)
    results = [
        EvalResult(
            task_type=objective.task, dataset_type=held_out or "custom", dataset_name=held_out or "evaluation data",
            metric_type=name.partition("[")[0], metric_name=name, metric_value=round(value, 6),
        )
        for name, value in metrics.items()
    ]  # fmt: skip
    more: dict[str, Any] = {"base_model_relation": "adapter" if library == "peft" else "finetune"} if base else {}
    return ModelCardData(
        library_name=library, pipeline_tag=objective.task, base_model=base, datasets=datasets or None,
        metrics=list(dict.fromkeys(name.partition("[")[0] for name in metrics if name != "loss")) or None,
        model_name=_title(spec), eval_results=results or None, tags=["finetune-operator"], **more,
    )  # fmt: skip


def _introduction(spec: TrainSpec, report: Mapping[str, Any]) -> str:
    start = f"from {spec.model.source}" if spec.model.initialization == "Pretrained" else "from random weights"
    which = (
        "" if report["exportedStep"] == report["steps"] else f" This is the best model, that of step {report['exportedStep']}."
    )
    return f"Trained {start} for {report['steps']} steps with the objective {spec.objective.type}.{which}"


def _loading(folder: Path, library: str, spec: TrainSpec, objective: Objective) -> Iterator[str]:
    """Lines of Python that load the model, or the model of each task."""
    if library == "sentence-transformers":
        yield "from sentence_transformers import SentenceTransformer\n"
        yield 'model = SentenceTransformer("PATH/TO/THIS/FOLDER")'
    elif library == "peft":
        name = objective.auto_class.__name__
        yield f"from peft import PeftModel\nfrom transformers import {name}\n"
        yield f'base = {name}.from_pretrained("{(spec.model.source or "").removeprefix(HUB.prefix)}")'
        yield 'model = PeftModel.from_pretrained(base, "PATH/TO/THIS/FOLDER")'
    else:
        imports, lines = set(), []
        for part, member in objective.members().items():
            path = "/".join(filter(None, ("PATH/TO/THIS/FOLDER", part)))
            if member.task in SUPPORTED_TASKS:
                imports.add("pipeline")
                lines.append(f'{part or "model"} = pipeline("{member.task}", "{path}")')
                continue
            name = member.auto_class.__name__
            imports |= {"AutoProcessor", name}
            lines += [
                f'{part or "model"} = {name}.from_pretrained("{path}")',
                f'processor = AutoProcessor.from_pretrained("{path}")',
            ]
        yield f"from transformers import {', '.join(sorted(imports))}\n"
        yield from lines


def _results(metrics: Mapping[str, float], report: Mapping[str, Any]) -> Iterator[str]:
    if metrics:
        start = report.get("start", {})
        shown = {name.removeprefix(FEW_SHOT): value for name, value in start.items() if name.startswith(FEW_SHOT)}
        columns = {"this model": metrics, "at the start": start, "at the start, few-shot": shown}
        given = {title: values for title, values in columns.items() if values}
        rows = [
            [name.replace("|", " "), *(f"{values[name]:.6g}" if name in values else "" for values in given.values())]
            for name in metrics
        ]
        lines = [["on the evaluation data", *given], ["---"] * (len(given) + 1), *rows]
        yield "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    sentence = report["fit"]["sentence"]
    yield f"{sentence[0].upper()}{sentence[1:]}."


def _library(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():
        return "peft"
    return "sentence-transformers" if (folder / "modules.json").exists() else "transformers"


def _title(spec: TrainSpec) -> str:
    known = spec.model.source or str(spec.model.config.get("model_type", "model"))
    return f"{known.rstrip('/').rpartition('/')[2]}, {spec.objective.type}"


def _hub_name(source: str | None) -> str | None:
    return "/".join(source.removeprefix(HUB.prefix).split("/")[:2]) if source and HUB.matches(source) else None


def _settings(spec: TrainSpec) -> Any:
    return _without_credentials(spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True))


def _without_credentials(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_credentials(value) for key, value in node.items() if key != "credentials"}
    return [_without_credentials(value) for value in node] if isinstance(node, list) else node


def _yaml(content: Any) -> str:
    return f"```yaml\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)}```"
