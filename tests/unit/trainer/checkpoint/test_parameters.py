"""A checkpoint is loaded only into a model with the same parameters."""

from __future__ import annotations

import pytest
import torch

from finetune_trainer.checkpoint.parameters import ParameterRecord
from finetune_trainer.protocol.outcome import ConfigurationError

RUN = "the run in file:///out at step 40 of 100"


def test_counts_partitioned_parameters_as_whole_ones() -> None:
    whole, partitioned = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    for parameter in partitioned.parameters():
        parameter.ds_shape, parameter.ds_numel = parameter.shape, parameter.numel()  # type: ignore[attr-defined]
        parameter.data = torch.empty(0)
    assert ParameterRecord.of(partitioned) == ParameterRecord.of(whole)
    assert ParameterRecord.of(whole).count == 8


def test_rejects_another_number_of_parameters() -> None:
    stored = ParameterRecord.of(torch.nn.Linear(3, 2))
    stored.validate_same(ParameterRecord.of(torch.nn.Linear(3, 2)), RUN)
    with pytest.raises(ConfigurationError) as error:
        stored.validate_same(ParameterRecord.of(torch.nn.Linear(4, 2)), RUN)
    assert str(error.value) == (
        "spec.model: the model has 10 parameters and not 8 like that of the run in file:///out at step 40 of 100, because its "
        "source, its tokenizer or a library changed: restore the old one, or choose another spec.checkpoint.storage"
    )


def test_rejects_other_shapes_of_the_same_size() -> None:
    stored = ParameterRecord.of(torch.nn.Linear(3, 2, bias=False))
    with pytest.raises(
        ConfigurationError, match=r"^spec\.model: the model has parameters of other names or shapes than that of the"
    ):
        stored.validate_same(ParameterRecord.of(torch.nn.Linear(2, 3, bias=False)), RUN)
