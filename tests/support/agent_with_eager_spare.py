"""The agent's own command line, but its spare process imports at once, and at the agent's priority.

Usually the spare imports some seconds after the first step and at the lowest priority, so that it does not slow training down.
On a machine with other work a test or a benchmark would wait for it for minutes. Start this file with `python -P`: modules of
its folder must not hide others.
"""

import dataclasses
import os
import sys

from finetune_trainer.agent import cli
from finetune_trainer.agent.stop_signals import StopSignals

if __name__ == "__main__":
    stops = StopSignals()
    stops.install()
    settings = cli.parse()
    limits = dataclasses.replace(settings.limits, spare_delay=0.0, spare_niceness=os.getpriority(os.PRIO_PROCESS, 0))
    sys.exit(cli.run(dataclasses.replace(settings, limits=limits), stops))
