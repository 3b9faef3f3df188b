"""Preference tuning: losses of TRL, references with and without adapters, resuming, and training."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tests.support import corpora, launch, learning, ranks, tiny
from tests.support.learning import learn
from tests.support.methods import apply_method
from tests.support.slow import slow
from transformers import LlamaConfig, LlamaForCausalLM, pipeline
from trl import DPOConfig, DPOTrainer

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.data_checks import DataChecksConfig
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample
from finetune_trainer.data.preprocessing.encode_findings import encode_findings
from finetune_trainer.data.preprocessing.examples import EncodeCounts, EncodeStatus
from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.inputs.chat import LOSS_MASK
from finetune_trainer.objectives.preference_tuning import PreferenceTuning
from finetune_trainer.protocol.outcome import DataError

HERE = ProcessGroup(rank=0, size=1, local_rank=0, processes_per_node=1, device=torch.device("cpu"))
ROWS = corpora.preferences(5)
QUESTION = [{"role": "user", "content": "May I?"}]
SPOKEN = {
    "prompt": QUESTION,
    "chosen": [{"role": "assistant", "content": "Yes."}],
    "rejected": [{"role": "assistant", "content": "No, you may not."}],
}
TOKENIZER = tokenizer_training.train_tokenizer([text for row in ROWS for text in row.values()], 400)
CHANGES: dict[str, Any] = {"model": {"config": learning.LLAMA}, "objective": {"type": "PreferenceTuning"}}


def record(row: dict[str, Any], line: int = 1) -> Row:
    return make_row(row, {role: role for role in row}, f"rows.jsonl:{line}")


def document(lora: bool = False, data: Any = None, **options: Any) -> TrainSpec:
    pretrained = {"initialization": "Pretrained", "source": "hf://somewhere/llama", "tokenizer": None}
    return tiny.spec(
        objective={"type": "PreferenceTuning", "preferenceTuning": options}, data=data or {},
        **({"model": pretrained, "method": {"type": "LoRA", "lora": {"dropout": 0.5}}} if lora else {}),
    )  # fmt: skip


def objective(first: dict[str, Any] = ROWS[0], lora: bool = False, data: Any = None, **options: Any) -> PreferenceTuning:
    tuning = PreferenceTuning.from_spec(document(lora, data, **options), TOKENIZER)
    tuning.encoder.set_statistics(tuning.encoder.collect_statistics(lambda: [record(first)]))
    return tuning


def examples(tuning: PreferenceTuning, rows: list[dict[str, Any]]) -> list[Sample]:
    return [example for encoded in tuning.encoder.encode([record(row) for row in rows]) for example in encoded.examples]


def model(seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    known = learning.LLAMA | {"vocab_size": len(TOKENIZER), "initializer_range": 0.2} | settings
    return LlamaForCausalLM(LlamaConfig(**{key: value for key, value in known.items() if key != "model_type"}))


def batch_of(tuning: PreferenceTuning, rows: list[dict[str, Any]]) -> Batch:
    return tuning.collator.collate(examples(tuning, rows), [], Layout())


@pytest.mark.parametrize(
    ("theirs", "options"),
    [
        ({"loss_type": "sigmoid"}, {}),
        ({"loss_type": "sigmoid", "beta": 0.5}, {"beta": 0.5}),
        ({"loss_type": "ipo", "beta": 0.3}, {"loss": "IPO", "beta": 0.3}),
        ({"loss_type": "hinge"}, {"loss": "Hinge"}),
    ],
)
def test_computes_batch_loss_and_metrics_of_trl(theirs: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    quiet = {"report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True}
    trainer = DPOTrainer(
        model=model(1), ref_model=model(0), args=DPOConfig(output_dir=str(tmp_path), **quiet, **theirs),
        train_dataset=datasets.Dataset.from_list(ROWS), processing_class=TOKENIZER,
    )  # fmt: skip
    given = trainer.data_collator([trainer.train_dataset[index] for index in range(len(ROWS))])
    expected = trainer.compute_loss(trainer.model, given).item()

    tuning = objective(**options)
    batch = batch_of(tuning, ROWS)
    width = given["input_ids"].shape[1]
    assert torch.equal(batch.inputs["input_ids"][:, :width], given["input_ids"])
    assert torch.equal(batch.targets["labels"][:, :width] != -100, given["completion_mask"] == 1)
    tuning.model_setup.prepare(model(0), HERE)
    learner = model(1)
    assert tuning.collator.count_terms(batch) == [len(ROWS)]
    assert tuning.loss.loss_sum(learner, batch).item() / len(ROWS) == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        measured = tuning.metrics.measure(learner, batch)
    found = tuning.metrics.compute([expected], measured.statistics.numpy())
    logged = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert measured.losses.item() / len(ROWS) == pytest.approx(expected, rel=1e-5)
    assert 0 < found["accuracy"] < 1
    assert found["accuracy"] == pytest.approx(logged["rewards/accuracies"])
    assert found["margin"] == pytest.approx(logged["rewards/margins"], rel=1e-4)
    assert found["chosenReward"] == pytest.approx(logged["rewards/chosen"], rel=1e-4)
    assert found["rejectedReward"] == pytest.approx(logged["rewards/rejected"], rel=1e-4)


@pytest.mark.parametrize("lora", [False, True])
def test_reference_is_the_starting_model(lora: bool) -> None:
    tuning, learner = objective(lora=lora), model()
    batch = batch_of(tuning, ROWS)
    tuning.model_setup.prepare(learner, HERE)
    learner = apply_method(learner, document(lora=lora), tuning).train()
    loss = tuning.loss.loss_sum(learner, batch)
    assert loss.item() / len(ROWS) == pytest.approx(math.log(2), abs=1e-7)
    assert learner.training
    before = tuning.loss.reference.log_probabilities(learner, batch)
    loss.backward()
    torch.optim.SGD((weight for weight in learner.parameters() if weight.requires_grad), 0.1).step()
    assert torch.equal(tuning.loss.reference.log_probabilities(learner, batch), before)
    assert tuning.loss.loss_sum(learner, batch).item() < loss.item()


@pytest.mark.parametrize("wrong", [0.0, 0.2])
def test_computes_loss_and_gradients_of_the_formula(wrong: float) -> None:
    tuning, learner = objective(labelSmoothing=wrong), model(1)
    tuning.model_setup.prepare(model(0), HERE)
    batch = batch_of(tuning, ROWS)

    def answers(speaker: Any) -> torch.Tensor:
        labels = batch.targets["labels"][:, 1:]
        scores = speaker(batch.inputs["input_ids"], batch.inputs["attention_mask"]).logits[:, :-1].log_softmax(-1)
        each = scores.gather(-1, labels.clamp(min=0)[..., None])[..., 0].where(labels != -100, 0.0)
        return each.sum(1).reshape(2, -1)

    ratios = answers(learner) - answers(model(0)).detach()
    margin = 0.1 * (ratios[0] - ratios[1])
    expected = -((1 - wrong) * margin.sigmoid().log() + wrong * (-margin).sigmoid().log()).sum()
    loss, weights = tuning.loss.loss_sum(learner, batch)[0], [*learner.parameters()]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for got, wanted in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_reference_free_rewards_are_log_probabilities() -> None:
    tuning, learner = objective(referenceFree=True, beta=1.0), model()
    tuning.model_setup.prepare(learner, HERE)
    assert tuning.loss.reference.copy is None
    statistics = tuning.metrics.measure(learner, batch_of(tuning, ROWS)).statistics
    assert statistics[2] < -len(ROWS)


def test_turns_off_dropout() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tuning = objective()
    learner = GPT2LMHeadModel(GPT2Config(vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=4)).train()
    tuning.model_setup.prepare(learner, HERE)
    loss = tuning.loss.loss_sum(learner, batch_of(tuning, ROWS)).item() / len(ROWS)
    assert loss == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("lora", [False, True])
def test_rank_without_rows_has_zero_loss(lora: bool) -> None:
    tuning, learner = objective(lora=lora), model()
    tuning.model_setup.prepare(learner, HERE)
    learner = apply_method(learner, document(lora=lora), tuning)
    batch = tuning.collator.collate([], [], Layout())
    assert tuning.collator.count_terms(batch) == [0]
    total = tuning.loss.loss_sum(learner, batch)
    total.sum().backward()
    assert total.item() == 0
    assert not any(weight.grad.any() for weight in learner.parameters() if weight.grad is not None)
    assert tuning.metrics.measure(learner, batch).statistics.tolist() == [0, 0, 0, 0]


def test_renders_conversations_with_the_template() -> None:
    tuning = objective(SPOKEN)
    [row] = examples(tuning, [SPOKEN])
    chosen, rejected = np.split(row[TOKENS], row[LENGTHS][:1])
    end = "<|endoftext|>\n"
    assert TOKENIZER.decode(chosen) == f"user\nMay I?{end}assistant\nYes.{end}"
    assert TOKENIZER.decode(rejected) == f"user\nMay I?{end}assistant\nNo, you may not.{end}"
    assert TOKENIZER.decode(row[TOKENS][row[LOSS_MASK] == 1]) == f"Yes.{end}No, you may not.{end}"
    told_before = SPOKEN | {"prompt": [*QUESTION, {"role": "assistant", "content": "Who?"}, *QUESTION]}
    [row] = examples(tuning, [told_before])
    assert TOKENIZER.decode(row[TOKENS][row[LOSS_MASK] == 1]) == f"Yes.{end}No, you may not.{end}", "the prompt has no loss"
    assert tuning.model_setup.format_prompt("May I?") == QUESTION
    assert objective().model_setup.format_prompt("May I?") == "May I?"


def test_encodes_long_pairs() -> None:
    rows = [
        {"prompt": "May I?\n", "chosen": "Yes.", "rejected": "No."}, {"prompt": "x " * 99, "chosen": "Yes.", "rejected": "No."},
        {"prompt": "May I?\n", "chosen": "Yes.", "rejected": "no " * 99},
    ]  # fmt: skip
    statuses = {
        "Truncate": [EncodeStatus.KEPT, EncodeStatus.MASKED, EncodeStatus.TRUNCATED],
        "Drop": [EncodeStatus.KEPT, EncodeStatus.DROPPED, EncodeStatus.DROPPED],
    }
    for overlong, expected in statuses.items():
        tuning = objective(data={"maxLength": 32, "overlong": overlong})
        encoded = list(tuning.encoder.encode([record(row) for row in rows]))
        assert [one.status for one in encoded] == expected
        assert all(example[LENGTHS].max() <= 32 for one in encoded for example in one.examples)


def test_leaves_out_and_reports_pairs_without_a_difference() -> None:
    pairs = [("a", "b"), ("a", "a"), ("a", ""), ("x " * 99 + "a", "x " * 99 + "b"), ("b", "b")]
    rows = [record({"prompt": "May I?", "chosen": one, "rejected": other}, line) for line, (one, other) in enumerate(pairs, 1)]
    encoded = list(objective(data={"maxLength": 32}).encoder.encode(rows))
    kept, identical, masked = EncodeStatus.KEPT, EncodeStatus.IDENTICAL, EncodeStatus.MASKED
    assert [row.status for row in encoded] == [kept, identical, EncodeStatus.UNANSWERED, masked, identical]
    assert [len(row.examples) for row in encoded] == [1, 0, 0, 0, 0]
    counts = EncodeCounts()
    for row, result in zip(rows, encoded, strict=True):
        counts.add(row, result)
    assert [finding.sentence for finding in encode_findings({"train": counts}, DataChecksConfig())] == [
        "1 of 5 training rows (20.0 %) without an answer, or with an empty one: the first is rows.jsonl:3; left out",
        "2 of 5 training rows (40.0 %) with two equal answers, neither of which can be preferred: the first is rows.jsonl:2; "
        "left out",
        "1 of 5 training rows (20.0 %) without anything to learn: the first is rows.jsonl:4; left out",
    ]
    same = SPOKEN | {"rejected": SPOKEN["chosen"]}
    assert [row.status for row in objective(SPOKEN).encoder.encode([record(SPOKEN), record(same)])] == [kept, identical]


@pytest.mark.parametrize(
    ("first", "row", "message"),
    [
        (ROWS[0], SPOKEN, "prompt is a list of messages, and the first row's prompt is a string: write all of them alike"),
        (SPOKEN, ROWS[0], "prompt is a string, and the first row's prompt is a list of messages: write all of them alike"),
        (SPOKEN, SPOKEN | {"rejected": "No."}, "rejected is a string, and the first row's prompt is a list of messages"),
        (SPOKEN, SPOKEN | {"chosen": QUESTION}, "chosen has no message of the assistant, so there is nothing to prefer"),
        (SPOKEN, SPOKEN | {"chosen": [{"role": "bot"}]}, "chosen has in message 1 the unknown role 'bot'"),
        (ROWS[0], ROWS[0] | {"chosen": None}, "chosen is null, not a string"),
        (ROWS[0], ROWS[0] | {"prompt": 3}, "prompt is a int, not a string"),
    ],
)
def test_rejects_invalid_rows(first: dict[str, Any], row: dict[str, Any], message: str) -> None:
    tuning = objective(first)
    with pytest.raises(DataError) as raised:
        list(tuning.encoder.encode([record(first), record(row, line=2)]))
    assert str(raised.value).startswith(f"rows.jsonl:2: column {message}")


def test_interrupted_run_has_the_history_of_an_uninterrupted_one(tmp_path: Path) -> None:
    histories = []
    for name, interruptions in (("straight", {}), ("broken", {0: (signal.SIGTERM, 3)})):
        folder = tmp_path / name
        folder.mkdir()
        rows = folder / "pairs.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in corpora.preferences(20)))
        document = launch.write_document(
            folder, objective=CHANGES["objective"], data={"train": [{"source": f"file://{rows}"}], "maxLength": 64},
            training={"maxSteps": 8},
        )  # fmt: skip
        heard = [ranks.run(launch.run_rank, 1, document, interruptions)[0]]
        if interruptions:
            assert heard[0].code != 0
            heard.append(ranks.run(launch.run_rank, 1, document)[0])
        assert heard[-1].code == 0
        histories.append((folder / "storage/model/training/history.jsonl").read_text())
    assert histories[0] == histories[1]
    assert '"margin"' in histories[0]


@pytest.mark.parametrize("method", ["Full", "LoRA", slow("Bottleneck")])
def test_zero_stage_3_gives_the_same_losses(method: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    model().save_pretrained(start)
    TOKENIZER.save_pretrained(start)
    runs = [
        learn(
            tmp_path / str(size), corpora.preferences(8), size, model={"source": f"file://{start}"}, method={"type": method},
            objective=CHANGES["objective"], deepspeed={"zeroStage": stage},
            training={"maxSteps": 4, "batchSize": 8, "microBatchSize": 4, "logEverySteps": 1},
        )
        for size, stage in ((1, 0), (2, 3))
    ]  # fmt: skip
    assert runs[0].losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert runs[0].losses[-1] < 0.69
    assert runs[1].losses == pytest.approx(runs[0].losses, rel=1e-4)
    assert runs[1].after == pytest.approx(runs[0].after, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("method", "rate"), [("Full", 2e-4), slow("LoRA", 5e-4)])
def test_training_improves_the_metrics(method: str, rate: float, tmp_path: Path) -> None:
    pairs = corpora.preferences()
    both = [{"prompt": row["prompt"], "completion": row[answer]} for row in pairs for answer in ("chosen", "rejected")]
    taught = {"type": "InstructionTuning", "instructionTuning": {"format": "PromptCompletion"}}
    start = learn(tmp_path / "start", both, objective=taught, model=CHANGES["model"], training={"maxSteps": 80})
    spoken = [
        {"prompt": [{"role": "user", "content": row["prompt"]}]}
        | {answer: [{"role": "assistant", "content": row[answer]}] for answer in ("chosen", "rejected")}
        for row in pairs
    ]
    trained = learn(
        tmp_path / "tuned", spoken, model={"source": f"file://{start.model}"}, method={"type": method},
        objective=CHANGES["objective"] | {"preferenceTuning": {"beta": 0.5}},
        training={"maxSteps": 30, "optimizer": {"learningRate": rate}},
    )  # fmt: skip
    assert trained.before == {
        "loss": pytest.approx(math.log(2), abs=1e-6), "accuracy": 0, "margin": 0, "chosenReward": 0, "rejectedReward": 0
    }  # fmt: skip
    assert trained.after["accuracy"] > 0.95
    assert trained.after["margin"] > 0.5
    asked = [{"role": "user", "content": "May I call email: _hidden?\n"}]
    answer = pipeline("text-generation", str(trained.model))(asked, max_new_tokens=16, do_sample=False)
    assert answer[0]["generated_text"][-1]["content"] == "No,", "the short answer that it was taught to prefer"
