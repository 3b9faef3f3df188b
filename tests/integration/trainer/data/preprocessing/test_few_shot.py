"""Few-shot evaluation: the solved rows before an evaluation row, the measured answer, and the effect on a trained model."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support import corpora, launch, learning, ranks, tiny
from tests.support.learning import learn

from finetune_trainer import objectives
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Layout
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset, Sample
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives import Objective
from finetune_trainer.objectives.inputs.chat import LOSS_MASK
from finetune_trainer.objectives.seq2seq import TARGET
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.engine import merge

TOKENIZER = tokenizer_training.train_tokenizer(
    [text for pair in corpora.questions(20) for text in pair] + ["assistant user system"] * 9, 500
)
# As in many model families: at most one system message, at the beginning, and then alternating turns.
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('system') }}{% endif %}"
    "{% elif (m.role == 'assistant') != (messages[loop.index0 - 1].role == 'user' and loop.index0 > 0) %}"
    "{{ raise_exception('turns') }}{% endif %}[{{ m.role }}]{{ m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
MARKED = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}-"
    "{% generation %}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
TEXTS: list[dict[str, Any]] = [
    {"text": question, "target": answer.partition(",")[0]} for question, answer in corpora.questions(20)
]


def prepared(folder: Path, kind: str, rows: Sequence[dict[str, Any]], **changes: Any) -> tuple[Objective, Prepared]:
    """Prepares the rows without packing; a fifth is held out, each after three solved rows."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.jsonl").exists():
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": [{"source": f"file://{folder}/rows.jsonl"}], "evaluationFraction": 0.2, "maxLength": 512, "packing": False}
    defaults: dict[str, Any] = {
        "objective": {"type": kind}, "data": data, "evaluation": {"fewShot": {"examples": 3}},
    }  # fmt: skip
    spec = tiny.spec(**merge(defaults, changes))
    objective = objectives.from_spec(spec, TOKENIZER)
    return objective, prepare(spec, objective.encoder, SourceResolver(spec.objective, folder / "cache", Credentials()))


def chat(folder: Path, template: str = STRICT, **changes: Any) -> tuple[Objective, Prepared]:
    options = {"chatTemplate": template} | changes.pop("options", {})
    rows = changes.pop("rows", corpora.conversations(20))
    return prepared(folder, "InstructionTuning", rows, objective={"instructionTuning": options}, **changes)


def text(row: Sample, name: str = TOKENS) -> str:
    return str(TOKENIZER.decode(row[name]))


def every(rows: ArrowDataset | None) -> list[Sample]:
    assert rows is not None
    return [rows[index] for index in range(len(rows))]


def pairs(data: Prepared) -> list[tuple[Sample, Sample]]:
    """Each evaluation row after its solved rows, and alone."""
    return list(zip(every(data.few_shot), every(data.evaluation), strict=True))


def validate_term_counts(objective: Objective, data: Prepared) -> None:
    collator = objective.collator
    shown, alone = (collator.count_terms(collator.collate(rows, [], Layout())) for rows in zip(*pairs(data), strict=True))
    assert list(shown) == list(alone) > [0]


@pytest.mark.parametrize("template", [STRICT, MARKED], ids=["found", "marked"])
def test_solved_conversations_become_earlier_turns_without_loss(template: str, tmp_path: Path) -> None:
    objective, data = chat(tmp_path, template)
    assert len(pairs(data)) > 5
    validate_term_counts(objective, data)
    known = {text(row).partition("[user]")[2] for row in every(data.train)}
    for shown, alone in pairs(data):
        lead, *turns = text(shown).split("[user]")
        assert lead == text(alone).split("[user]")[0] == "[system]You know Python.<|endoftext|>"
        assert turns[-1] == text(alone).split("[user]")[1]
        assert len(turns) == 4
        assert len(set(turns[:-1]) & known) == 3, "three different training rows"
        assert text({TOKENS: shown[TOKENS][shown[LOSS_MASK] == 1]}) == text({TOKENS: alone[TOKENS][alone[LOSS_MASK] == 1]})
        labels = objective.collator.collate([shown], [], Layout()).targets["labels"][0]
        assert (labels[: len(shown[TOKENS]) - len(alone[TOKENS])] == IGNORE_INDEX).all()
    assert len({text(row).split("[user]")[1] for row in every(data.few_shot)}) > 5, "they differ between rows"


def test_measures_all_answers_of_a_row_or_the_last(tmp_path: Path) -> None:
    def turns(*words: str) -> list[dict[str, str]]:
        return [{"role": role, "content": word} for role, word in zip(("user", "assistant") * 3, words, strict=False)]

    rows = [{"messages": turns(f"ask {number}", f"one {number}", "and", f"two {number}", "left open")} for number in range(40)]
    for loss_on, count in (("Assistant", 2), ("LastAssistant", 1)):
        _, data = chat(tmp_path / loss_on, rows=rows, options={"lossOn": loss_on})
        for shown, alone in pairs(data):
            answers = text({TOKENS: shown[TOKENS][shown[LOSS_MASK] == 1]})
            assert answers == text({TOKENS: alone[TOKENS][alone[LOSS_MASK] == 1]})
            assert answers.count("<|endoftext|>") == count
            assert text(shown).count("left open") == 1, "unanswered turns of solved rows are removed"


def test_prompts_and_completions_become_turns(tmp_path: Path) -> None:
    rows = [{"prompt": question, "completion": answer} for question, answer in corpora.questions(20)]
    objective, data = chat(tmp_path, rows=rows, options={"format": "PromptCompletion"})
    assert all(text(row).count("[user]") == 4 for row in every(data.few_shot))
    validate_term_counts(objective, data)


def test_solved_texts_precede_the_input(tmp_path: Path) -> None:
    options = {"seq2Seq": {"prefix": "ask: ", "metrics": []}}
    objective, data = prepared(tmp_path, "Seq2Seq", TEXTS, objective=options)
    solved = {f"ask: {row['text']}\n{row['target']}\n\n" for row in TEXTS}
    to_learn = {text(row) for row in every(data.train)}
    for shown, alone in pairs(data):
        assert text(shown, TARGET) == text(alone, TARGET)
        before = text(shown).removesuffix(text(alone))
        *examples, rest = (f"{part}\n\n" for part in before.split("\n\n"))
        assert set(examples) <= solved
        assert {one.split("\n")[0] for one in examples} <= to_learn
        assert (len(set(examples)), rest) == (3, "\n\n")
    validate_term_counts(objective, data)


def test_drawing_depends_on_the_seed_only(tmp_path: Path) -> None:
    first, again, other = (
        [text(row) for row in every(chat(tmp_path / name, training={"seed": seed})[1].few_shot)]
        for name, seed in (("first", 42), ("again", 42), ("other", 7))
    )
    assert first == again
    assert first != other
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "first/cache").rglob("*.*")}
    chat(tmp_path / "first")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "first/cache").rglob("*.*")} == files, "prepared once"
    _, plain = chat(tmp_path / "first", evaluation={"fewShot": None})
    assert plain.few_shot is None
    assert plain.report.few_shot is None


@pytest.mark.parametrize("overlong", ["Truncate", "Drop"])
def test_long_rows_lose_solved_rows_and_keep_their_answer(overlong: str, tmp_path: Path) -> None:
    _, roomy = chat(tmp_path / "roomy")
    lengths = sorted(len(row[TOKENS]) for row in every(roomy.few_shot))
    most = lengths[len(lengths) // 2]
    long = [{"role": "user", "content": f"{word} " * 200} for word in "abcdefghijklmnop"]
    answer = {"role": "assistant", "content": "Yes."}
    rows = [*corpora.conversations(20), *({"messages": [one, answer]} for one in long)]
    cut = [
        {"messages": [one, answer, long[0], answer]} for one in corpora.conversations(30)[-20:] for one in one["messages"][1:2]
    ]
    objective, data = chat(tmp_path, rows=[*rows, *cut], data={"maxLength": most, "overlong": overlong})
    few_shot = data.report.few_shot
    assert few_shot is not None
    assert len(pairs(data)) == few_shot.rows
    validate_term_counts(objective, data)
    given = [text(shown).count("[user]") - text(alone).count("[user]") for shown, alone in pairs(data)]
    assert set(given) >= {2, 3}
    assert few_shot.shortened == sum(count < 3 for count in given)
    assert few_shot.examples == pytest.approx(sum(given) / len(given))
    assert max(len(shown[TOKENS]) for shown, _ in pairs(data)) <= most
    [line] = [line for line in data.report.lines() if "few-shot" in line]
    assert f"{few_shot.shortened} of them with fewer than the document asks for" in line


def test_a_row_is_never_its_own_example(tmp_path: Path) -> None:
    (tmp_path / "held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS[:20]))
    held_out = {"evaluation": [{"source": f"file://{tmp_path}/held-out.jsonl"}], "evaluationFraction": None}
    _, data = prepared(tmp_path, "Seq2Seq", TEXTS[:20], data=held_out)
    assert all(text(shown).count(row["text"]) == 1 for shown, row in zip(every(data.few_shot), TEXTS, strict=False))


def test_rejects_rows_that_cannot_be_prompted(tmp_path: Path) -> None:
    refused = r"^spec.evaluation.fewShot.examples: 3 solved rows are needed before a row, and 2 of 2 training rows fit into"
    (tmp_path / "held-out.jsonl").write_text(json.dumps(TEXTS[0]) + "\n")
    held_out = {"evaluation": [{"source": f"file://{tmp_path}/held-out.jsonl"}], "evaluationFraction": None}
    with pytest.raises(DataError, match=refused):
        prepared(tmp_path, "Seq2Seq", TEXTS[1:3], data=held_out)
    once = "{% if messages | length > 3 %}{{ raise_exception('one question only') }}{% endif %}" + STRICT
    with pytest.raises(
        DataError, match=r"^spec.evaluation.fewShot: after solved rows, .*jsonl:\d+: column messages does not suit"
    ):
        chat(tmp_path / "once", once)


COLORS = ("amber", "black", "coral", "denim", "ebony", "fawn", "green", "hazel", "ivory", "jade", "khaki", "lime")
THINGS = ("apple", "boat", "chair", "door", "egg", "fence", "glass", "house")


def about(color: str, things: Sequence[str]) -> dict[str, Any]:
    """A conversation in which everything has the same color."""
    turns = ([{"role": "user", "content": thing}, {"role": "assistant", "content": color}] for thing in things)
    return {"messages": [message for turn in turns for message in turn]}


def test_a_model_uses_the_answers_of_solved_rows(tmp_path: Path) -> None:
    brief = {"chatTemplate": "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"}
    chosen: dict[str, Any] = {"objective": {"type": "InstructionTuning", "instructionTuning": brief}}
    chance = random.Random(0)
    base = learn(
        tmp_path / "base", [about(chance.choice(COLORS), chance.choices(THINGS, k=3)) for _ in range(300)],
        model={"config": learning.LLAMA | {"num_hidden_layers": 1, "hidden_size": 32}},
        training={"maxSteps": 160, "batchSize": 8, "optimizer": {"learningRate": 1e-2}}, **chosen,
    )  # fmt: skip
    coral = [about("coral", [f"{one} {other}"]) for one in THINGS for other in THINGS[:5]]
    options = {"atStart": False, "fewShot": {"examples": 3}}
    again = chosen | {"model": {"source": f"file://{base.model}"}, "evaluation": options, "training": {"maxSteps": 2}}
    trained = learn(tmp_path / "own", coral, **again)
    assert trained.before["accuracy"] < 0.7, "half of an answer is its end-of-text token"
    assert trained.before["fewShot.accuracy"] > 0.95
    assert trained.before["fewShot.loss"] < trained.before["loss"] / 4
    assert not [name for name in trained.after if name.startswith("fewShot.")]
    card = (trained.model / "README.md").read_text()
    assert "| on the evaluation data | this model | at the start | at the start, few-shot |" in card
    values = [trained.after["accuracy"], trained.before["accuracy"], trained.before["fewShot.accuracy"]]
    assert f"| accuracy | {' | '.join(f'{value:.6g}' for value in values)} |" in card
    report = json.loads((trained.model / "training/report.json").read_text())
    assert report["start"] == trained.before
    # As if the run had been interrupted between its last checkpoint and the export.
    shutil.rmtree(trained.model)
    [resumed] = ranks.run(launch.run_rank, 1, tmp_path / "own/train.json")
    assert not [event for event in resumed.events if event.event == "evaluated"]
    assert json.loads((trained.model / "training/report.json").read_text()) == report
