"""Instruction tuning: the loss mask, the loss of transformers, invalid conversations, and training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl
from tests.support import corpora, learning, tiny
from tests.support.learning import learn
from tests.support.slow import slow
from tokenizers import processors
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, pipeline
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from finetune_trainer.config.data_checks import DataChecksConfig
from finetune_trainer.data.loading.collate import Layout, PackedAs
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample
from finetune_trainer.data.preprocessing.encode_findings import encode_findings, validate_examples
from finetune_trainer.data.preprocessing.examples import EncodeCounts, EncodeIssue, EncodeStatus
from finetune_trainer.data.records.row import Row, make_row, texts
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.inputs.chat import LOSS_MASK
from finetune_trainer.objectives.inputs.chat_template import DEFAULT_TEMPLATE
from finetune_trainer.objectives.instruction_tuning import InstructionTuning
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end|>", "<end_of_turn>"]
ROWS = corpora.conversations(10)
HERE = ProcessGroup(rank=0, size=1, local_rank=0, processes_per_node=1, device=torch.device("cpu"))
TURNS = [
    {"role": "user", "content": "May I?"},
    {"role": "assistant", "content": "Yes,\n\n  you may."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Why not?"},
]


def tokenizer(special: list[str] | None = None) -> Any:
    trained = tokenizer_training.train_tokenizer([text for row in ROWS for text in texts(record(row))], 400)
    trained.add_special_tokens({"additional_special_tokens": special or []})
    return trained


def record(row: dict[str, Any], line: int = 1) -> Row:
    return make_row(row, {role: role for role in row}, f"rows.jsonl:{line}")


def objective(processor: Any = None, max_length: int = 512, overlong: str = "Truncate", **options: Any) -> InstructionTuning:
    spec = tiny.spec(
        objective={"type": "InstructionTuning", "instructionTuning": options},
        data={"maxLength": max_length, "overlong": overlong},
    )
    return InstructionTuning.from_spec(spec, processor or tokenizer())


def example(tuning: InstructionTuning, row: Any) -> Sample:
    [encoded] = tuning.encoder.encode([record(row if isinstance(row, dict) else {"messages": row})])
    return encoded.examples[0]


def learnt_text(tuning: InstructionTuning, row: Any) -> str:
    found = example(tuning, row)
    return str(tuning.processor.decode(found[TOKENS][found[LOSS_MASK] == 1]))


def known(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


def model(tuning: InstructionTuning) -> Any:
    torch.manual_seed(0)
    settings = learning.LLAMA | {"vocab_size": len(tuning.processor), "max_position_embeddings": 512}
    return LlamaForCausalLM(LlamaConfig(**{key: value for key, value in settings.items() if key != "model_type"})).eval()


def test_masks_all_but_the_assistants_messages() -> None:
    end = "<|endoftext|>\n"
    assert learnt_text(objective(), TURNS) == f"Yes,\n\n  you may.{end}Why not?{end}"
    assert learnt_text(objective(lossOn="LastAssistant"), TURNS) == f"Why not?{end}"
    asked_first = learnt_text(objective(lossOn="All"), TURNS)
    assert asked_first.startswith(f"user\nMay I?{end}assistant\nYes,")
    assert learnt_text(objective(lossOn="All"), TURNS[:1]) == f"user\nMay I?{end}"
    pair = {"prompt": "May I?", "completion": "Yes."}
    assert learnt_text(objective(), pair) == f"Yes.{end}"
    assert learnt_text(objective(), TURNS[1:]) == f"Yes,\n\n  you may.{end}Why not?{end}", "the assistant may begin"


@pytest.mark.parametrize("name", ["qwen2_5_training", "qwen3_training", "llama3_training", "gemma_training", "phi3_training"])
def test_computes_masks_of_templates_with_generation_markers(name: str) -> None:
    processor = tokenizer(SPECIAL)
    theirs = processor.apply_chat_template(
        TURNS, chat_template=known(name), return_assistant_tokens_mask=True, return_dict=True
    )
    for written in (name, name.removesuffix("_training")):
        found = example(objective(processor, chatTemplate=known(written)), TURNS)
        assert found[TOKENS].tolist() == theirs["input_ids"], written
        if (name, written) != ("qwen2_5_training", "qwen2_5"):  # trl learns the line break of the prompt too
            assert found[LOSS_MASK].tolist() == theirs["assistant_masks"], written


@pytest.mark.parametrize("name", ["llama3", "gemma"])
def test_finds_the_assistant_without_generation_markers(name: str) -> None:
    unknown = "{# of our own #}" + known(name)
    found, marked = (
        example(objective(tokenizer(SPECIAL), chatTemplate=template), TURNS)
        for template in (unknown, known(f"{name}_training"))
    )
    assert found[TOKENS].tolist() == marked[TOKENS].tolist()
    assert found[LOSS_MASK].tolist() == marked[LOSS_MASK].tolist()


def test_includes_blanks_where_a_tokenizer_trims_offsets() -> None:
    processor = tokenizer()
    wanted = example(objective(processor), TURNS)[LOSS_MASK].tolist()
    processor.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert example(objective(processor), TURNS)[LOSS_MASK].tolist() == wanted


def test_passes_other_keys_of_a_message_to_the_template() -> None:
    template = "{% for m in messages %}{{ m.name or 'it' }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    tuning = objective(chatTemplate=template + "{% if add_generation_prompt %}it: {% endif %}")
    messages = [TURNS[0] | {"name": "ann"}, TURNS[1] | {"name": None}]
    assert tuning.processor.decode(example(tuning, messages)[TOKENS]).startswith("ann: May I?<|endoftext|>it: Yes")


def test_computes_the_loss_of_transformers_and_the_batch_of_trl() -> None:
    tuning = objective()
    found = [example(tuning, row) for row in (*ROWS[:5], TURNS)]
    batch = tuning.collator.collate(found, [], Layout())
    learner = model(tuning)
    mean = tuning.loss.loss_sum(learner, batch)[0] / tuning.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(learner(**tiny.model_arguments(batch)).loss.item(), rel=1e-5)
    collator = DataCollatorForLanguageModeling(tuning.processor.pad_token_id, pad_to_multiple_of=8)
    labels = [np.where(row[LOSS_MASK] == 1, row[TOKENS], -100) for row in found]
    theirs = collator(
        [{"input_ids": row[TOKENS].tolist(), "labels": own.tolist()} for row, own in zip(found, labels, strict=True)]
    )
    ours = tiny.model_arguments(batch)
    assert all(torch.equal(ours[name], theirs[name]) for name in ("input_ids", "labels", "attention_mask"))

    packed = {name: np.concatenate([row[name] for row in found]) for name in (TOKENS, LOSS_MASK)}
    packed |= {LENGTHS: np.array([len(row[TOKENS]) for row in found])}
    together = tuning.collator.collate([packed], [], Layout(PackedAs.POSITIONS))
    assert tuning.collator.count_terms(together) == tuning.collator.count_terms(batch)
    assert tuning.loss.loss_sum(learner, together).item() == pytest.approx(
        tuning.loss.loss_sum(learner, batch).item(), rel=1e-5
    )

    measured = tuning.metrics.measure(learner, batch)
    guessed = learner(**tiny.model_arguments(batch)).logits[:, :-1].argmax(-1) == batch.targets["labels"][:, 1:]
    accuracy = guessed.sum().item() / tuning.collator.count_terms(batch)[0]
    assert measured.losses.item() == pytest.approx(tuning.loss.loss_sum(learner, batch).item())
    assert tuning.metrics.compute([1.0], measured.statistics.numpy())["accuracy"] == pytest.approx(accuracy)


def test_rank_without_rows_has_zero_loss() -> None:
    tuning = objective()
    batch = tuning.collator.collate([], [], Layout())
    assert tuning.collator.count_terms(batch) == [0]
    assert tuning.loss.loss_sum(model(tuning), batch).item() == 0


def test_encodes_long_conversations() -> None:
    long = [{"role": "user", "content": "x " * 200}, TURNS[1]]
    rows = [record({"messages": messages}) for messages in (TURNS[:2], long, [*TURNS[:2], *long])]
    statuses = {
        "Truncate": [EncodeStatus.KEPT, EncodeStatus.MASKED, EncodeStatus.TRUNCATED],
        "Drop": [EncodeStatus.KEPT, EncodeStatus.DROPPED, EncodeStatus.DROPPED],
    }
    for overlong, expected in statuses.items():
        encoded = list(objective(max_length=64, overlong=overlong).encoder.encode(rows))
        assert [one.status for one in encoded] == expected
        assert [len(one.examples) for one in encoded] == [
            int(status in (EncodeStatus.KEPT, EncodeStatus.TRUNCATED)) for status in expected
        ]


def test_learns_no_message_whose_weight_is_0() -> None:
    end = "<|endoftext|>\n"
    silenced = [TURNS[0], TURNS[1] | {"weight": 0}, *TURNS[2:]]
    assert learnt_text(objective(), silenced) == f"Why not?{end}"
    everything = learnt_text(objective(lossOn="All"), silenced)
    assert everything == f"user\nMay I?{end}assistant\nuser\nWhy?{end}assistant\nWhy not?{end}"


def test_learns_only_the_completion_after_a_prompt_of_messages() -> None:
    assert learnt_text(objective(), {"prompt": TURNS[:3], "completion": TURNS[3:]}) == "Why not?<|endoftext|>\n"


def test_leaves_out_and_reports_rows_without_an_answer_to_learn() -> None:
    empty, masked = TURNS[1] | {"content": " "}, TURNS[1] | {"weight": 0}
    rows = [TURNS, TURNS[:1], [TURNS[0], empty], [TURNS[0], empty, *TURNS[2:]], [TURNS[0], masked], TURNS[:3]]
    rows.append([TURNS[0] | {"name": "ann"}, TURNS[1]])
    encoded = list(objective().encoder.encode([record({"messages": row}, line) for line, row in enumerate(rows, start=1)]))
    assert [row.status for row in encoded] == [
        EncodeStatus.KEPT, *[EncodeStatus.UNANSWERED] * 3, EncodeStatus.MASKED, EncodeStatus.KEPT, EncodeStatus.KEPT,
    ]  # fmt: skip
    assert [list(row.issues) for row in encoded[-2:]] == [[EncodeIssue.OPEN_END], [EncodeIssue.UNWRITTEN_NAMES]]
    counts = EncodeCounts()
    for line, row in enumerate(encoded, start=1):
        counts.add(record({"messages": TURNS}, line), row)
    findings = encode_findings({"train": counts}, DataChecksConfig())
    assert [finding.sentence for finding in findings] == [
        "3 of 7 training rows (42.9 %) without an answer, or with an empty one: the first is rows.jsonl:2; left out",
        "1 of 7 training rows (14.3 %) without anything to learn: the first is rows.jsonl:5; left out",
        "1 of 7 training rows (14.3 %) with names of speakers, which the chat template does not write: the first is "
        "rows.jsonl:7",
        "1 of 7 training rows (14.3 %) with a last message that is not answered, from which nothing is learned: the first is "
        "rows.jsonl:6",
    ]


def test_rejects_data_without_labels() -> None:
    counts = {"train": EncodeCounts(rows=2, statuses=Counter({EncodeStatus.MASKED: 2})), "evaluation": EncodeCounts()}
    with pytest.raises(DataError) as raised:
        validate_examples(tiny.spec(objective={"type": "InstructionTuning"}, data={"maxLength": 512}), counts, [])
    assert str(raised.value).startswith(
        "spec.data.train: nothing is left to learn from (of 2 documents 0 are empty and 0 longer than maxLength 512; 2 have "
        "nothing to learn within that length):"
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "is a str, not a list of messages"),
        (None, "is null, not a list of messages"),
        ([], "is a list without messages"),
        (["hello"], "has in message 1 a str, not an object with role and content"),
        ([{"content": "x"}], "has in message 1 no role: write one of system, developer, user, assistant, tool"),
        ([TURNS[0], {"role": "gpt", "content": "x"}], "has in message 2 the unknown role 'gpt': write one of"),
        ([TURNS[0], {"role": "assistant"}], "has in message 2 no content"),
        ([TURNS[0], {"role": "assistant", "content": 3}], "has in message 2 a content that is a int, not a string"),
    ],
)
def test_rejects_invalid_conversations(messages: Any, message: str) -> None:
    with pytest.raises(DataError) as raised:
        list(objective().encoder.encode([record({"messages": messages}, line=7)]))
    assert str(raised.value).startswith(f"rows.jsonl:7: column messages {message}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "ends what the assistant says with no special token"),
        ("{{ messages | length }}{{ eos_token }}", "does not write the content of a message of the user"),
        (
            "{{ messages | length }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
            "writes a question differently once the answer follows",
        ),
        ("{{ raise_exception('never') }}", r"fails on a question and its answer \(never\)"),
        ("{% for", "fails on a question and its answer"),
    ],
)
def test_rejects_invalid_templates(template: str, message: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^spec\.objective\.instructionTuning\.chatTemplate: the chat template {message}"
    ):
        objective(chatTemplate=template)


def test_rejects_conversation_that_the_template_cannot_render() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + DEFAULT_TEMPLATE
    with pytest.raises(DataError, match=r"^rows.jsonl:1: column messages does not suit the chat template \(no system\)"):
        example(objective(chatTemplate=refusing), ROWS[0])
    forgetful = "{% if messages | length > 3 %}long{% endif %}" + DEFAULT_TEMPLATE
    with pytest.raises(
        DataError,
        match=r"^rows.jsonl:1: column messages is a conversation whose beginning the chat template renders differently",
    ):
        example(objective(chatTemplate=forgetful), TURNS)


def test_generation_stops_at_the_end_of_a_turn() -> None:
    processor = tokenizer(SPECIAL)
    tuning = objective(processor, chatTemplate=known("qwen3"))
    learner = model(tuning)
    for _ in range(2):
        tuning.model_setup.prepare(learner, HERE)
        ends = [learner.config.eos_token_id, processor.convert_tokens_to_ids("<|im_end|>")]
        assert learner.generation_config.eos_token_id == ends


def test_rejects_pretrained_model_without_a_template() -> None:
    spec = tiny.spec(
        model={"initialization": "Pretrained", "source": "hf://somewhere/llama", "tokenizer": None},
        objective={"type": "InstructionTuning"},
    )
    with pytest.raises(ConfigurationError, match=r"^spec.objective.instructionTuning.chatTemplate: the tokenizer has no chat"):
        InstructionTuning.from_spec(spec, tokenizer())


def test_fingerprint_depends_on_all_that_changes_examples() -> None:
    ways: list[dict[str, Any]] = [
        {}, {"lossOn": "All"}, {"chatTemplate": "{# other #}" + DEFAULT_TEMPLATE},
        {"max_length": 99},
    ]  # fmt: skip
    assert len({str(objective(**way).encoder.fingerprint) for way in ways}) == len(ways)


@pytest.mark.parametrize("form", ["Messages", slow("PromptCompletion")])
def test_training_improves_the_metrics(form: str, tmp_path: Path) -> None:
    chosen = {"objective": {"type": "InstructionTuning", "instructionTuning": {"format": form}}}
    rows = corpora.conversations() if form == "Messages" else [
        {"prompt": question, "completion": answer} for question, answer in corpora.questions()
    ]  # fmt: skip
    sampled = {"atStart": True, "generation": {"prompts": ["May I call email: _secret?"], "maxNewTokens": 16}}
    trained = learn(tmp_path, rows, model={"config": learning.LLAMA}, evaluation=sampled, **chosen)
    assert trained.before["accuracy"] < 0.2
    assert trained.after["accuracy"] > 0.9
    answer = pipeline("text-generation", str(trained.model))
    system = [{"role": "system", "content": "You know Python."}] if form == "Messages" else []
    for name, expected in (("_hidden", "No, it is private."), ("shown", "Yes, it is public.")):
        asked = [*system, {"role": "user", "content": f"May I call email: {name}?"}]
        reply = answer(asked, max_new_tokens=16, do_sample=False)[0]["generated_text"]
        assert reply[-1] == {"role": "assistant", "content": expected}, "and it stops by itself"
    assert AutoTokenizer.from_pretrained(trained.model).chat_template == DEFAULT_TEMPLATE
    assert "No, it is private." in (trained.model / "training/samples.json").read_text()
