"""The real measurements of a node, changed as a test says: `benchmark.json` beside the work directories has the faults.

It maps the index of a node to "wrong" or to a factor of its speed. The fault is cured when the node is measured again, as on
another machine.
"""

import json
import sys
from pathlib import Path

import torch

from finetune_trainer.agent import node_benchmark
from finetune_trainer.agent.preflight import DeviceMeasurement

node = sys.argv[sys.argv.index("--node") + 1]
faults = Path("..") / "benchmark.json"
fault = json.loads(faults.read_text()).get(node)
measured = Path("measured")
if measured.exists():
    fault = None
measured.touch()
measure = node_benchmark.measure_device


def measure_with_fault(device: torch.device) -> DeviceMeasurement:
    measurement = measure(device)
    # Equal nodes, however loaded this machine is.
    equal = measurement.model_copy(update={"teraflops": 1.0, "memory_bandwidth": 10.0})
    if fault == "wrong":
        return equal.model_copy(update={"is_exact": False})
    return equal.model_copy(update={"teraflops": 1.0 if fault is None else fault})


node_benchmark.measure_device = measure_with_fault
sys.exit(node_benchmark.main())
