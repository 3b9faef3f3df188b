"""`python -m finetune_trainer.agent`."""

import os
import sys
from pathlib import Path

from finetune_trainer.agent.stop_signals import StopSignals

# The agent itself logs that it waits for the store; torch's socket layer would add a line for every try.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

if __name__ == "__main__":
    stops = StopSignals()
    stops.install()  # before torch is imported, which takes seconds: a SIGTERM in that time must not be lost

    # The operator sets both to paths in the work directory, which is empty when a pod starts; torch's import needs TMPDIR.
    for variable in ("HOME", "TMPDIR"):
        if variable in os.environ:
            Path(os.environ[variable]).mkdir(parents=True, exist_ok=True)

    from finetune_trainer.agent.cli import main

    sys.exit(main(stops))
