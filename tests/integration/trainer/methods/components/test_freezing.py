"""Freezing, gradual unfreezing and layer-wise learning rates, compared with plain torch at every ZeRO stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support import ranks, tiny, training
from tests.support.methods import apply_method

from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.training import lr_schedule

PARTITIONED = {"config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
STAGES = [{"deepspeed": {"zeroStage": stage} | (PARTITIONED if stage == 3 else {})} for stage in (0, 1, 2, 3)]
STEPS, EVERY, DECAY = 8, 2, 0.5
HEAD = 3  # depth of the head of a tiny Llama with two layers


def depth(name: str) -> int:
    """The depth of a Llama's weight, by its name."""
    if "layers." in name:
        return int(name.split("layers.")[1].partition(".")[0]) + 1
    return 0 if "embed" in name else HEAD


def reference(steps: int, decay: float, every: int | None) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step by plain torch, which freezes each weight by requires_grad."""
    spec = tiny.spec(training={"maxSteps": steps})
    model, settings = tiny.llama(), spec.training.optimizer
    groups = [
        {"params": [weight], "weight_decay": settings.weight_decay if weight.dim() > 1 else 0.0, "depth": depth(name)}
        for name, weight in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, eps=settings.epsilon)
    points = []
    for step in range(1, steps + 1):
        rate = settings.learning_rate * lr_schedule.learning_rate_factor(spec.training.schedule, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * decay ** (HEAD - group["depth"])
            group["params"][0].requires_grad_(every is None or group["depth"] >= HEAD - (step - 1) // every)
        optimizer.zero_grad()
        loss = model(**tiny.rows(spec.training.batch_size, seed=step)).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), spec.training.max_gradient_norm)
        optimizer.step()
        points.append((loss.item(), norm.item()))
    return points


def assert_curves_agree(curve: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert len(curve) == len(expected)
    for point, expected_point in zip(curve, expected, strict=True):
        assert point == pytest.approx(expected_point, rel=1e-3)


def test_trains_as_plain_torch_does_at_every_stage() -> None:
    optimizer = {"learningRate": 1e-2, "weightDecay": 0.1}
    decayed = {"training": {"maxSteps": STEPS, "optimizer": optimizer | {"layerDecay": DECAY}}}
    gradual = {"training": {"maxSteps": STEPS}, "method": {"unfreeze": {"everySteps": EVERY}}}
    frozen = {"method": {"freeze": {"modules": ["layers.1.mlp"], "embeddings": True, "layers": 1}}}
    offloaded = gradual | {"deepspeed": {"zeroStage": 2, "offload": {"optimizer": "CPU"}}}
    cases = [change | stage for change in (decayed, frozen, gradual) for stage in STAGES] + [offloaded]
    results = ranks.run(training.changed_weights, 2, cases)[0]
    names = {name for name, _ in tiny.llama().named_parameters()}
    for curve, moved in results[:4]:
        assert_curves_agree(curve, reference(STEPS, DECAY, None))
        assert all(changed == names for changed in moved[1:])  # the first step of the warm-up has a learning rate of 0
    for curve, moved in results[8:]:
        assert_curves_agree(curve, reference(STEPS, 1.0, EVERY))
        for step, changed in enumerate(moved[1:], start=2):
            assert changed == {name for name in names if depth(name) >= HEAD - (step - 1) // EVERY}, step
        assert moved[-1] == names
    for _, moved in results[4:8]:
        assert moved[1] == {name for name in names if depth(name) >= 2 and ".mlp." not in name}


def freeze(model: Any, **settings: Any) -> set[str]:
    """Freeze weights of the model, and return their names."""
    spec = tiny.spec(method={"freeze": settings})
    model_to_train = apply_method(model, spec, training.objective_of(spec))
    return {name for name, parameter in model_to_train.named_parameters() if not parameter.requires_grad}


def test_freezes_modules_by_name() -> None:
    assert freeze(tiny.llama(), modules=["layers.*.mlp"]) == {
        f"model.layers.{layer}.mlp.{name}_proj.weight" for layer in (0, 1) for name in ("gate", "up", "down")
    }
    assert freeze(tiny.llama(), modules=["model.norm"]) == {"model.norm.weight"}
    tied = freeze(tiny.gpt2(), embeddings=True)
    assert tied == {"transformer.wte.weight", "transformer.wpe.weight"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules": ["layer.0"]}, r"modules: the model has no module 'layer\.0': choose among .*down_proj"),
        ({"layers": 3}, r"layers: the model has 2 layers, not 3: lower it"),
        ({"modules": ["*"]}, r": no weight is left to train"),
    ],
)
def test_rejects_unsuitable_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec\.method\.freeze\.?{message}"):
        freeze(tiny.llama(), **settings)
