"""`python -m finetune_trainer.agent`."""

import os
import sys
from pathlib import Path

from finetune_trainer.agent.stop_signals import StopSignals

# The agent waits for a missing store and says so itself; the socket layer would add a line to each of its tries.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

if __name__ == "__main__":
    stops = StopSignals()
    stops.install()  # before torch is imported, which takes seconds: process 1 of a container never dies of a missed SIGTERM

    # The operator points both into the work directory, which is empty when a pod starts; torch's import wants TMPDIR already.
    for place in ("HOME", "TMPDIR"):
        if place in os.environ:
            Path(os.environ[place]).mkdir(parents=True, exist_ok=True)

    from finetune_trainer.agent.command import main

    sys.exit(main(stops))
