"""Image contrastive training: the NT-Xent loss, views that depend on seed, epoch and row only, and training."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support import corpora, tiny
from tests.support.contrastive import without_rows
from tests.support.learning import VIT, learn
from tests.support.slow import slow
from transformers import AutoConfig, AutoModel, PreTrainedModel, pipeline

from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.models import processors
from finetune_trainer.objectives.image_contrastive import ImageContrastive
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials

ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
SWIN = {
    "model_type": "swin", "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "image_size": 16,
    "patch_size": 2, "drop_path_rate": 0.0,
}  # fmt: skip
MASKFORMER = {
    "model_type": "maskformer", "fpn_feature_size": 32, "mask_feature_size": 32,
    "backbone_config": SWIN | {"depths": [1] * 4, "num_heads": [1] * 4, "out_indices": [1, 2, 3, 4]},
    "decoder_config": {
        "model_type": "detr", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 4,
    },
}  # fmt: skip
FAMILIES = {"vit": VIT, "resnet": RESNET, "swin": SWIN}
ROWS = corpora.images(14)


def objective(family: dict[str, Any] = VIT, **options: Any) -> ImageContrastive:
    spec = tiny.spec(
        model={"config": family, "tokenizer": None},
        objective={"type": "ImageContrastive", "imageContrastive": {"imageSize": 16} | options},
    )
    return ImageContrastive.from_spec(
        spec, processors.load_processor(spec, SourceResolver(spec.objective, Path(), Credentials()))
    )


def examples(contrastive: ImageContrastive) -> list[Sample]:
    records = [Row(row, f"rows.jsonl:{number}", {"image": "image"}) for number, row in enumerate(ROWS, start=1)]
    return [{**example} for one in contrastive.encoder.encode(records) for example in one.examples]


def batch_of(contrastive: ImageContrastive, numbers: range, seed: int = 1, epoch: int = 0, training: bool = True) -> Batch:
    rows, randoms = examples(contrastive), [sample_generator(seed, epoch, number) for number in numbers]
    return contrastive.collator.collate([rows[number] for number in numbers], randoms, Layout(training=training))


def model(family: dict[str, Any] = VIT) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = dict(family)
    made: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    return made.eval()


def nt_xent(embeddings: torch.Tensor, temperature: float) -> torch.Tensor:
    """Equation 1 of the paper, view by view, for embeddings [2 x rows, width] of all first views and then all second ones."""
    views = len(embeddings)
    terms = []
    for one in range(views):
        other = (one + views // 2) % views
        similar = torch.stack([torch.cosine_similarity(embeddings[one], each, dim=0) for each in embeddings]) / temperature
        denominator = torch.stack([similar[each].exp() for each in range(views) if each != one]).sum()
        terms.append(-(similar[other].exp() / denominator).log())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [[range(14)], [range(5), range(5, 14)]], ids=["one batch", "two"])
def test_computes_loss_and_gradient_of_the_paper(parts: list[range], family: str) -> None:
    contrastive, learner = objective(FAMILIES[family], temperature=0.2), model(FAMILIES[family])
    contrastive.model_setup.prepare(learner, ALONE)
    batches = [batch_of(contrastive, part) for part in parts]
    assert [contrastive.collator.count_terms(batch) for batch in batches] == [[2 * len(part)] for part in parts]
    prepared = contrastive.loss.prepare_step(learner, batches, ALONE)
    total = torch.stack([contrastive.loss.loss_sum(learner, batch) for batch in prepared]).sum() / 28
    states = learner(pixel_values=batch_of(contrastive, range(14)).inputs["pixel_values"]).last_hidden_state
    embeddings = states.mean(1) if states.dim() == 3 else states.flatten(2).mean(2)
    expected = nt_xent(embeddings, 0.2)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    names, weights = zip(*[(n, w) for n, w in learner.named_parameters() if "pooler" not in n], strict=True)
    for name, ours, theirs in zip(
        names, *(torch.autograd.grad(loss, weights, allow_unused=True) for loss in (total, expected)), strict=True
    ):
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_views_depend_only_on_seed_epoch_and_row(training: bool) -> None:
    contrastive = objective()
    together = batch_of(contrastive, range(14), training=training)
    first, second = together.inputs["pixel_values"].chunk(2)
    assert together.targets["views"].tolist() == [0] * 14 + [1] * 14
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    torch.manual_seed(7)
    for number in (0, 5, 13):
        alone = batch_of(contrastive, range(number, number + 1), training=training).inputs["pixel_values"]
        assert torch.equal(alone, torch.stack([first[number], second[number]]))
    for change in ({"seed": 2}, {"epoch": 1}):
        others = batch_of(contrastive, range(14), training=training, **change).inputs["pixel_values"]
        assert not any(torch.equal(one, other) for one, other in zip(others, together.inputs["pixel_values"], strict=True))
    assert torch.initial_seed() == 7, "torch's own numbers are left alone"


def test_augments_views_as_configured() -> None:
    found = batch_of(objective(augmentation={"horizontalFlip": 0.5}), range(14)).inputs["pixel_values"]
    first, second = found.chunk(2)
    same = [torch.equal(one, other) for one, other in zip(first, second, strict=True)]
    assert 0 < sum(same) < 14
    assert all(torch.equal(one, other) or torch.equal(one, other.flip(-1)) for one, other in zip(first, second, strict=True))


def test_ranks_each_view_among_all_views_of_the_step() -> None:
    contrastive, learner = objective(), model()
    batch = batch_of(contrastive, range(14))
    with torch.no_grad():
        [prepared] = contrastive.loss.prepare_step(learner, [batch], ALONE)
        measured = contrastive.metrics.measure(learner, prepared)
        first, second = contrastive.loss.embed(learner, batch)
    candidates = torch.cat([second, first])
    places = []
    for row, view in enumerate(first):
        scores = [(float(view @ each), number == row) for number, each in enumerate(candidates) if number != 14 + row]
        places.append(1 + [right for _, right in sorted(scores, key=lambda score: -score[0])].index(True))
    found = contrastive.metrics.compute([0.0], measured.statistics.numpy())
    assert found["recall@1"] == pytest.approx(np.mean([place == 1 for place in places]))
    assert found["recall@5"] == pytest.approx(np.mean([place <= 5 for place in places]))
    assert found["mrr"] == pytest.approx(np.mean([1 / place for place in places]))


@pytest.mark.parametrize("family", FAMILIES)
def test_rank_without_rows_has_zero_loss(family: str) -> None:
    without_rows(objective(FAMILIES[family]), model(FAMILIES[family]), ALONE)


def test_rejects_unsupported_models() -> None:
    small = model(VIT | {"image_size": 8})
    with pytest.raises(ConfigurationError, match=r"^spec.model: this vit cannot compute on images of 3 x 16 x 16 "):
        objective().model_setup.prepare(small, ALONE)
    masks = model(MASKFORMER)
    with pytest.raises(ConfigurationError, match=r"^spec.model: this maskformer gives no last_hidden_state for an image"):
        objective(imageSize=32).model_setup.prepare(masks, ALONE)


@pytest.mark.parametrize(("steps", "recall"), [(75, 0.35), slow(150, 0.45)])
def test_training_improves_the_metrics(steps: int, recall: float, tmp_path: Path) -> None:
    trained = learn(
        tmp_path, corpora.images(), model={"config": VIT, "tokenizer": None},
        objective={
            "type": "ImageContrastive",
            "imageContrastive": {
                "augmentation": {"randomCrop": {"minimumArea": 0.7}, "colorJitter": {"brightness": 0.2}}
            },
        },
        training={"maxSteps": steps, "batchSize": 64, "microBatchSize": 64, "optimizer": {"learningRate": 2e-3}},
    )  # fmt: skip
    assert trained.before["recall@1"] < 0.2
    assert trained.after["recall@1"] > recall
    embed = pipeline("image-feature-extraction", str(trained.model))
    picture = Image.open(io.BytesIO(base64.b64decode(ROWS[0]["image"]))).convert("RGB")
    assert np.array(embed(picture)).shape == (1, 17, VIT["hidden_size"])
