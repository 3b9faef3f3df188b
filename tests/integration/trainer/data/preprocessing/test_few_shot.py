"""Few-shot: what stands before an evaluation row, that only its own answer counts, and that a model can make use of it."""

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
# As many families have it: one message of the system, in the beginning, and then by turns.
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
    """The rows of which a fifth is held out, unpacked, behind three solved ones each."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.jsonl").exists():
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": [{"source": f"file://{folder}/rows.jsonl"}], "evaluationFraction": 0.2, "maxLength": 512, "packing": False}
    asked: dict[str, Any] = {
        "objective": {"type": kind}, "data": data, "evaluation": {"fewShot": {"examples": 3}},
    }  # fmt: skip
    spec = tiny.spec(**merge(asked, changes))
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
    """Each evaluation row behind its examples, and alone."""
    return list(zip(every(data.few_shot), every(data.evaluation), strict=True))


def validate_term_counts(objective: Objective, data: Prepared) -> None:
    collator = objective.collator
    shown, alone = (collator.count_terms(collator.collate(rows, [], Layout())) for rows in zip(*pairs(data), strict=True))
    assert list(shown) == list(alone) > [0]


@pytest.mark.parametrize("template", [STRICT, MARKED], ids=["found", "marked"])
def test_solved_conversations_are_earlier_turns_and_only_the_rows_own_answer_is_measured(template: str, tmp_path: Path) -> None:
    objective, data = chat(tmp_path, template)
    assert len(pairs(data)) > 5
    validate_term_counts(objective, data)
    known = {text(row).partition("[user]")[2] for row in every(data.train)}
    for shown, alone in pairs(data):
        lead, *turns = text(shown).split("[user]")
        assert lead == text(alone).split("[user]")[0] == "[system]You know Python.<|endoftext|>"
        assert turns[-1] == text(alone).split("[user]")[1]
        assert len(turns) == 4
        assert len(set(turns[:-1]) & known) == 3, "different ones, all of them to learn from"
        assert text({TOKENS: shown[TOKENS][shown[LOSS_MASK] == 1]}) == text({TOKENS: alone[TOKENS][alone[LOSS_MASK] == 1]})
        labels = objective.collator.collate([shown], [], Layout()).targets["labels"][0]
        assert (labels[: len(shown[TOKENS]) - len(alone[TOKENS])] == IGNORE_INDEX).all()
    assert len({text(row).split("[user]")[1] for row in every(data.few_shot)}) > 5, "not the same ones for all rows"


def test_of_a_row_with_several_answers_all_are_measured_or_the_last(tmp_path: Path) -> None:
    def turns(*words: str) -> list[dict[str, str]]:
        return [{"role": role, "content": word} for role, word in zip(("user", "assistant") * 3, words, strict=False)]

    rows = [{"messages": turns(f"ask {number}", f"one {number}", "and", f"two {number}", "left open")} for number in range(40)]
    for loss_on, count in (("Assistant", 2), ("LastAssistant", 1)):
        _, data = chat(tmp_path / loss_on, rows=rows, options={"lossOn": loss_on})
        for shown, alone in pairs(data):
            answers = text({TOKENS: shown[TOKENS][shown[LOSS_MASK] == 1]})
            assert answers == text({TOKENS: alone[TOKENS][alone[LOSS_MASK] == 1]})
            assert answers.count("<|endoftext|>") == count
            assert text(shown).count("left open") == 1, "what nobody answered is not shown"


def test_prompts_and_completions_are_turns_too(tmp_path: Path) -> None:
    rows = [{"prompt": question, "completion": answer} for question, answer in corpora.questions(20)]
    objective, data = chat(tmp_path, rows=rows, options={"format": "PromptCompletion"})
    assert all(text(row).count("[user]") == 4 for row in every(data.few_shot))
    validate_term_counts(objective, data)


def test_solved_texts_stand_before_the_text_to_read(tmp_path: Path) -> None:
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


def test_every_machine_draws_the_same_and_another_seed_others(tmp_path: Path) -> None:
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
def test_rows_without_room_lose_examples_and_not_their_answer(overlong: str, tmp_path: Path) -> None:
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
    told = data.report.few_shot
    assert told is not None
    assert len(pairs(data)) == told.rows
    validate_term_counts(objective, data)
    given = [text(shown).count("[user]") - text(alone).count("[user]") for shown, alone in pairs(data)]
    assert set(given) >= {2, 3}
    assert told.shortened == sum(count < 3 for count in given)
    assert told.examples == pytest.approx(sum(given) / len(given))
    assert max(len(shown[TOKENS]) for shown, _ in pairs(data)) <= most
    [line] = [line for line in data.report.lines() if "few-shot" in line]
    assert f"{told.shortened} of them with fewer than the document says" in line


def test_the_row_itself_is_never_among_its_examples(tmp_path: Path) -> None:
    (tmp_path / "held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS[:20]))
    held_out = {"evaluation": [{"source": f"file://{tmp_path}/held-out.jsonl"}], "evaluationFraction": None}
    _, data = prepared(tmp_path, "Seq2Seq", TEXTS[:20], data=held_out)
    assert all(text(shown).count(row["text"]) == 1 for shown, row in zip(every(data.few_shot), TEXTS, strict=False))


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    refused = (
        r"^spec.evaluation.fewShot.examples: 3 are to stand before a row, and 2 of 2 training rows fit into a sequence whole: "
    )
    (tmp_path / "held-out.jsonl").write_text(json.dumps(TEXTS[0]) + "\n")
    held_out = {"evaluation": [{"source": f"file://{tmp_path}/held-out.jsonl"}], "evaluationFraction": None}
    with pytest.raises(DataError, match=refused):
        prepared(tmp_path, "Seq2Seq", TEXTS[1:3], data=held_out)
    once = "{% if messages | length > 3 %}{{ raise_exception('one question only') }}{% endif %}" + STRICT
    with pytest.raises(
        DataError, match=r"^spec.evaluation.fewShot: behind solved rows, .*jsonl:\d+: column messages does not suit"
    ):
        chat(tmp_path / "once", once)


COLOURS = ("amber", "black", "coral", "denim", "ebony", "fawn", "green", "hazel", "ivory", "jade", "khaki", "lime")
THINGS = ("apple", "boat", "chair", "door", "egg", "fence", "glass", "house")


def about(colour: str, things: Sequence[str]) -> dict[str, Any]:
    """A conversation in which everything has the same colour."""
    turns = ([{"role": "user", "content": thing}, {"role": "assistant", "content": colour}] for thing in things)
    return {"messages": [message for turn in turns for message in turn]}


def test_a_model_finds_the_answer_in_the_examples_where_it_could_only_guess(tmp_path: Path) -> None:
    brief = {"chatTemplate": "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"}
    chosen: dict[str, Any] = {"objective": {"type": "InstructionTuning", "instructionTuning": brief}}
    chance = random.Random(0)
    taught = learn(
        tmp_path / "base", [about(chance.choice(COLOURS), chance.choices(THINGS, k=3)) for _ in range(300)],
        model={"config": learning.LLAMA | {"num_hidden_layers": 1, "hidden_size": 32}},
        training={"maxSteps": 160, "batchSize": 8, "optimizer": {"learningRate": 1e-2}}, **chosen,
    )  # fmt: skip
    coral = [about("coral", [f"{one} {other}"]) for one in THINGS for other in THINGS[:5]]
    asked = {"atStart": False, "fewShot": {"examples": 3}}
    again = chosen | {"model": {"source": f"file://{taught.model}"}, "evaluation": asked, "training": {"maxSteps": 2}}
    learnt = learn(tmp_path / "own", coral, **again)
    assert learnt.before["accuracy"] < 0.7, "half of an answer is where it ends"
    assert learnt.before["fewShot.accuracy"] > 0.95
    assert learnt.before["fewShot.loss"] < learnt.before["loss"] / 4
    assert not [name for name in learnt.after if name.startswith("fewShot.")]
    card = (learnt.model / "README.md").read_text()
    assert "| on the evaluation data | this model | at the start | at the start, few-shot |" in card
    values = [learnt.after["accuracy"], learnt.before["accuracy"], learnt.before["fewShot.accuracy"]]
    assert f"| accuracy | {' | '.join(f'{value:.6g}' for value in values)} |" in card
    report = json.loads((learnt.model / "training/report.json").read_text())
    assert report["start"] == learnt.before
    # As if the run had ended between its last checkpoint and the export.
    shutil.rmtree(learnt.model)
    [heard] = ranks.run(launch.run_rank, 1, tmp_path / "own/train.json")
    assert not [event for event in heard.events if event.event == "evaluated"]
    assert json.loads((learnt.model / "training/report.json").read_text()) == report
