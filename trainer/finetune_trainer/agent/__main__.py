"""`python -m finetune_trainer.agent`."""

import os
import sys

from finetune_trainer.agent.stops import Stops

# The agent waits for a missing store and says so itself; the socket layer would add a line to each of its tries.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

if __name__ == "__main__":
    stops = Stops()
    stops.install()  # before torch is imported, which takes seconds: process 1 of a container never dies of a missed SIGTERM

    from finetune_trainer.agent.command import main

    sys.exit(main(stops))
