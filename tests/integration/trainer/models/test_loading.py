"""Loading of tokenizers and models, and the errors for those that cannot be used. No test uses the network."""

from __future__ import annotations

import json
import socket
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support import tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from finetune_trainer import config
from finetune_trainer.data.records.row import make_row
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import tokenizer_training
from finetune_trainer.models.embeddings import first_new_row
from finetune_trainer.models.loading import load_model, validate_positions
from finetune_trainer.models.tokenizer_training import Corpus, training_corpus
from finetune_trainer.models.tokenizers import load_tokenizer
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials

TEXTS = [file.read_text() for file in sorted((Path(sysconfig.get_path("stdlib")) / "json").glob("*.py"))]
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
TRAINED: dict[str, Any] = {"initialization": "Scratch", "tokenizer": {"train": {"vocabSize": 320}}}


class TextSource:
    """A data source of the texts above."""

    identity = "texts"

    def rows(self) -> Iterator[Any]:
        for number, text in enumerate(TEXTS):
            yield make_row({"text": text}, {"text": "text"}, f"texts:{number}")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder with a model and its tokenizer, as a run exports it."""
    tokenizer, model = load_both(TRAINED | {"config": LLAMA}, tmp_path)
    tokenizer.save_pretrained(tmp_path / "stored")
    model.save_pretrained(tmp_path / "stored")
    return tmp_path / "stored"


def load_both(document: dict[str, Any], folder: Path, seed: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    spec = config.ModelConfig.model_validate(document)
    common: dict[str, Any] = {"cache": folder / "cache", "credentials": Credentials()}
    tokenizer = load_tokenizer(spec, Corpus([TextSource()]), **common)
    objective = CausalLM.from_spec(tiny.spec(), tokenizer)
    return tokenizer, load_model(spec, objective, dtype=dtype, seed=seed, **common)


def pretrained(folder: Path, **document: Any) -> dict[str, Any]:
    return {"source": f"file://{folder}", **document}


def test_a_trained_tokenizer_decodes_every_text_unchanged() -> None:
    tokenizer = tokenizer_training.train_tokenizer(TEXTS, 300)
    for text in (*TEXTS, "日本語 \x00 🙂", "  two\t\r\nlines ", tokenizer_training.END[:5]):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == 300
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (0, 0, 1)


def test_training_a_tokenizer_is_deterministic(tmp_path: Path) -> None:
    folder = Path(tokenizer_training.__file__).parent
    data = config.DataConfig(train=[config.DatasetConfig(source=f"file://{folder}")])
    corpus = training_corpus(data, SourceResolver(config.ObjectiveSpec(), tmp_path, Credentials()))
    spec = config.ModelConfig.model_validate(TRAINED | {"config": LLAMA})
    first, cached = (
        load_tokenizer(spec, corpus, cache=tmp_path / "a", credentials=Credentials()).backend_tokenizer.to_str()
        for _ in range(2)
    )
    assert first == cached == tokenizer_training.train_tokenizer(list(corpus()), 320).backend_tokenizer.to_str()
    assert len(list((tmp_path / "a" / "tokenizers").glob("*/tokenizer.json"))) == 1


def test_rejects_tokenizer_training_without_text() -> None:
    with pytest.raises(DataError, match=r"^spec.data.train: there is no text to train a tokenizer on"):
        tokenizer_training.train_tokenizer(["", ""], 300)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (LLAMA, 320),
        (LLAMA | {"vocab_size": 512}, 512),
        ({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, 320),
        ({"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 8, "layer_types": ["full_attention"]}, 320),
        ({"model_type": "gpt_neox", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
          "num_attention_heads": 4}, 320),
    ],
)  # fmt: skip
def test_creates_a_model_from_scratch(settings: dict[str, Any], size: int, tmp_path: Path) -> None:
    tokenizer, model = load_both(TRAINED | {"config": settings}, tmp_path)
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == size
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (0, 0, 1)
    assert model(**tokenizer(["some text"], return_tensors="pt")).logits.shape[-1] == size


def test_random_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    document = TRAINED | {"config": LLAMA}
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    first = load_both(document, tmp_path)[1].state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    second = load_both(document, tmp_path)[1].state_dict()
    other = load_both(document, tmp_path, seed=2)[1].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize(("attention", "name"), [("Eager", "eager"), ("SDPA", "sdpa"), ("Auto", "sdpa")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loads_a_stored_model(stored: Path, tmp_path: Path, attention: str, name: str, dtype: torch.dtype) -> None:
    tokenizer, model = load_both(pretrained(stored, attention=attention), tmp_path, dtype=dtype)
    assert model.dtype == dtype
    assert model.config._attn_implementation == name
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    weights = load_file(stored / "model.safetensors")
    assert torch.equal(model.state_dict()["lm_head.weight"], weights["lm_head.weight"].to(dtype))


def test_loads_a_model_in_pytorch_format(stored: Path, tmp_path: Path) -> None:
    weights = load_file(stored / "model.safetensors")
    (stored / "model.safetensors").unlink()
    torch.save(weights, stored / "pytorch_model.bin")
    _, model = load_both(pretrained(stored), tmp_path)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in weights.items())


def test_a_stored_model_works_in_a_pipeline(stored: Path) -> None:
    generated = pipeline("text-generation", model=str(stored))("def", max_new_tokens=3, do_sample=False)
    assert generated[0]["generated_text"].startswith("def")


def test_overrides_fields_of_the_source(stored: Path, tmp_path: Path) -> None:
    model = load_both(pretrained(stored, config={"attention_dropout": 0.25, "model_type": "llama"}), tmp_path)[1]
    assert model.config.attention_dropout == 0.25
    assert model.config.hidden_size == 32
    smaller = load_both(pretrained(stored, initialization="Scratch", config={"num_hidden_layers": 1}), tmp_path)[1]
    assert len(smaller.model.layers) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "lama"}, "spec.model.config.model_type (Unrecognized model identifier: lama"),
        ({"model_type": "t5", "d_model": 8}, "spec.model.config.intermediate_size: t5 has no such setting; "),
        ({"hiden_size": 8}, "spec.model.config.hiden_size: llama has no such setting; did you mean hidden_size?"),
        ({"zzz": 8}, "spec.model.config.zzz: llama has no such setting; remove it or correct its spelling"),
        ({"to_dict": 8}, "spec.model.config.to_dict: llama has no such setting"),
        ({"torch_dtype": "bfloat16"}, "spec.model.config.torch_dtype: training.precision sets this: remove it"),
        ({"hidden_size": "big"}, "spec.model.config (TypeError: Field 'hidden_size' expected int, got str"),
        ({"hidden_size": 30}, "spec.model.config (ValueError: The hidden size (30) is not a multiple of the number of"),
        ({"hidden_act": "nope"}, "spec.model.config ('nope'): correct its values"),
        ({"vocab_size": 100}, "spec.model.config.vocab_size: the tokenizer has 320 tokens and the model 100 embeddings"),
    ],
)
def test_rejects_invalid_configurations(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert_rejected(TRAINED | {"config": LLAMA | changes}, message, tmp_path)


def test_rejects_an_architecture_without_a_causal_language_model(tmp_path: Path) -> None:
    message = "spec.objective.type: transformers has no AutoModelForCausalLM of the family t5: choose an objective that suits"
    assert_rejected(TRAINED | {"config": {"model_type": "t5", "d_model": 8, "num_layers": 1}}, message, tmp_path)


def test_rejects_flash_attention_that_is_not_installed(tmp_path: Path) -> None:
    message = "spec.model.attention: FlashAttention2 has been toggled on, but it cannot be used"
    assert_rejected(TRAINED | {"config": LLAMA, "attention": "FlashAttention2"}, message, tmp_path)


def assert_rejected(document: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_both(document, folder)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "document", "message"),
    [
        (drop_weight, {}, "spec.model.source: file://"),
        (lambda _: None, {"config": {"hidden_size": 64}}, "spec.model.source: the model at file://"),
        (lambda _: None, {"config": {"model_type": "gpt2"}}, "spec.model.config.model_type: the source is a llama, not a gpt2"),
        (
            lambda _: None,
            {"source": "file:///nowhere"},
            "spec.model.source: file:///nowhere does not exist (/nowhere): correct",
        ),
        (lambda _: None, {"tokenizer": {"source": "file:///nowhere"}}, "spec.model.tokenizer.source: file:///nowhere does not"),
    ],
)
def test_rejects_unusable_sources(
    stored: Path, tmp_path: Path, damage: Callable[[Path], None], document: dict[str, Any], message: str
) -> None:
    damage(stored)
    assert_rejected(pretrained(stored) | document, message, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_grows_the_embeddings_for_tokens_that_were_added(tied: bool, stored: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(stored, tie_word_embeddings=tied)
    model.save_pretrained(stored)
    tokenizer = AutoTokenizer.from_pretrained(stored)
    tokenizer.add_tokens(["<call>", "<result>"])
    tokenizer.save_pretrained(stored)
    loaded_tokenizer, loaded = load_both(pretrained(stored), tmp_path)
    inputs, head = loaded.get_input_embeddings().weight, loaded.get_output_embeddings().weight
    assert (inputs.shape[0], loaded.config.vocab_size, inputs is head) == (322, 322, tied)
    assert torch.equal(inputs[:320], model.get_input_embeddings().weight)
    torch.testing.assert_close(inputs[320:], inputs[:320].mean(0).expand(2, -1), rtol=0, atol=1e-4)
    assert [first_new_row(weight) for weight in (inputs, head)] == [320, 320]
    again = load_both(pretrained(stored), tmp_path)[1]
    assert torch.equal(again.get_input_embeddings().weight, inputs)
    assert loaded(**loaded_tokenizer(["<call>"], return_tensors="pt")).logits.shape[-1] == 322


def test_keeps_embeddings_that_no_token_uses(stored: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(stored)
    model.resize_token_embeddings(384)
    model.save_pretrained(stored)
    loaded = load_both(pretrained(stored), tmp_path)[1].get_input_embeddings().weight
    assert (loaded.shape[0], first_new_row(loaded)) == (384, None)


def test_rejects_a_tokenizer_with_another_vocabulary(stored: Path, tmp_path: Path) -> None:
    words = word_tokenizer(*(f"word{number}" for number in range(300)), "<end>")
    words.save_pretrained(tmp_path / "words")
    document = pretrained(stored, tokenizer={"source": f"file://{tmp_path}/words"})
    message = "spec.model.tokenizer: only 0 of the model's 320 tokens have the same id in this tokenizer, so the pretrained"
    assert_rejected(document, message, tmp_path)


def test_a_vocabulary_with_gaps_has_an_embedding_for_every_id(tmp_path: Path) -> None:
    level = Tokenizer(models.WordLevel({"a": 0, "b": 9, "<end>": 4}, unk_token="<end>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=level, eos_token="<end>", pad_token="<end>").save_pretrained(tmp_path / "gaps")
    document = {"initialization": "Scratch", "config": LLAMA, "tokenizer": {"source": f"file://{tmp_path}/gaps"}}
    assert load_both(document, tmp_path)[1].config.vocab_size == 10


def test_names_the_setting_for_a_model_with_code_of_its_own(stored: Path, tmp_path: Path) -> None:
    fields = json.loads((stored / "config.json").read_text())
    fields |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (stored / "config.json").write_text(json.dumps(fields))
    assert_rejected(pretrained(stored), "spec.model.trustRemoteCode: the source is loaded by code of its own", tmp_path)


def test_notes_weights_of_the_source_that_are_not_used(stored: Path, tmp_path: Path) -> None:
    spec = config.ModelConfig.model_validate(pretrained(stored, config={"num_hidden_layers": 1}))
    common: dict[str, Any] = {"cache": tmp_path / "cache", "credentials": Credentials()}
    objective = CausalLM.from_spec(tiny.spec(), load_tokenizer(spec, Corpus([TextSource()]), **common))
    load_model(spec, objective, dtype=torch.float32, seed=1, **common)
    [note] = objective.notes
    assert "has 9 weights that a LlamaForCausalLM does not use (model.layers.1.input_layernorm.weight, " in note


def word_tokenizer(*names: str, **special: str) -> Any:
    level = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=names[-1]))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=level, eos_token="<end>", **special)


@pytest.mark.parametrize(
    ("tokenizer", "spare_embeddings", "padding", "size"),
    [
        (word_tokenizer("a", "<end>", "<p>", pad_token="<p>"), 0, "<p>", 3),
        (word_tokenizer("a", "<end>", "<pad>"), 5, "<pad>", 3),
        (word_tokenizer("a", "<end>", "<unk>", pad_token="<end>"), 0, "<unk>", 3),
        (word_tokenizer("a", "<end>"), 1, tokenizer_training.PADDING, 3),
        (word_tokenizer("a", "<end>"), 0, "<end>", 2),
    ],
)
def test_chooses_the_padding_token_of_a_stored_tokenizer(
    tokenizer: Any, spare_embeddings: int, padding: str, size: int, tmp_path: Path
) -> None:
    folder = tmp_path / "words"
    scratch = {"initialization": "Scratch", "config": LLAMA | {"vocab_size": len(tokenizer) + spare_embeddings}}
    tokenizer.save_pretrained(folder)
    model = load_both(scratch | {"tokenizer": {"source": f"file://{folder}"}}, tmp_path)[1]
    model.save_pretrained(folder)
    loaded, model = load_both(pretrained(folder), tmp_path)
    assert loaded.pad_token == padding
    assert len(loaded) == size
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) + spare_embeddings


def test_rejects_sequences_longer_than_the_positions(tmp_path: Path) -> None:
    model = load_both(TRAINED | {"config": LLAMA}, tmp_path)[1]
    validate_positions(model, {"spec.data.maxLength": 64})
    with pytest.raises(
        ConfigurationError, match=r"^spec.data.maxLength: 65 is more than the 64 positions of this llama: lower"
    ):
        validate_positions(model, {"spec.data.maxLength": 65})


def test_a_loaded_model_can_be_stored_and_loaded_again(stored: Path, tmp_path: Path) -> None:
    tokenizer, model = load_both(pretrained(stored), tmp_path)
    tokenizer.save_pretrained(tmp_path / "again")
    model.save_pretrained(tmp_path / "again")
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert reloaded("x + größer")["input_ids"] == tokenizer("x + größer")["input_ids"]
    assert reloaded.pad_token_id == 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "again").config.use_cache is True


def test_generation_stops_at_the_tokenizers_end_of_text(stored: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(stored)
    tokenizer.add_special_tokens({"eos_token": "<stop>"})
    tokenizer.save_pretrained(stored)
    loaded_tokenizer, model = load_both(pretrained(stored), tmp_path)
    assert model.generation_config.eos_token_id == [0, loaded_tokenizer.convert_tokens_to_ids("<stop>")]
    unchanged = AutoModelForCausalLM.from_pretrained(stored)
    assert unchanged.generation_config.eos_token_id == 0
