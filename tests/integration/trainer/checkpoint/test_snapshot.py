"""A snapshot keeps the state of one moment while training changes it."""

from __future__ import annotations

import random
from collections import OrderedDict

import numpy
import torch

from finetune_trainer.checkpoint import random_state
from finetune_trainer.checkpoint.snapshot import HostMemory

LARGE = 8 << 20  # elements; the copy takes long enough for a step to start before it ends


def test_optimizer_step_waits_for_copies() -> None:
    weight = torch.nn.Parameter(torch.zeros(LARGE))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    memory = HostMemory()
    memory.guard(optimizer)
    addresses = set()
    for expected in range(3):
        memory.begin()
        taken = memory.take({"weight": weight})
        memory.start()
        weight.grad = torch.full_like(weight, -1.0)
        optimizer.step()
        memory.wait()
        assert bool((taken["weight"] == expected).all())
        addresses.add(taken["weight"].data_ptr())
    assert len(addresses) == 1, "the memory is reused"


def test_copies_changing_tensors_at_once() -> None:
    running, counter, settings = torch.zeros(LARGE), torch.zeros(()), {"scale": [1.0]}
    memory = HostMemory()
    memory.begin(changing=[running])
    taken = memory.take(OrderedDict(running=running, counter=counter, settings=settings))
    running += 1
    counter += 1
    settings["scale"][0] = 2.0
    memory.start()
    memory.wait()
    assert not taken["running"].any()
    assert not taken["counter"].any()
    assert taken["settings"] == {"scale": [1.0]}


def test_keeps_tied_weights_tied() -> None:
    weight = torch.ones(LARGE)
    memory = HostMemory()
    memory.begin()
    taken = memory.take({"embedding": weight, "head": weight.view(weight.shape)})
    memory.start()
    memory.wait()
    assert taken["embedding"] is taken["head"]


def test_restores_random_generators() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(), float(numpy.random.rand()), float(torch.rand(()))]

    draw()
    state = random_state.capture()
    expected = draw()
    draw()
    random_state.restore(state)
    assert draw() == expected
