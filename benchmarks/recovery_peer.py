"""The peer of recovery.py: a script for torchrun that trains with DeepSpeed and resumes from DeepSpeed's own checkpoints."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import deepspeed
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main() -> None:
    """Train until killed; rank 0 prints a line when it starts and after each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON with the model's and DeepSpeed's configuration")
    parser.add_argument("--folder", type=Path, required=True, help="of the checkpoints")
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--port", type=int, required=True, help="the first of the ports on which rank 0 listens")
    parser.add_argument("--step-seconds", type=float, required=True, help="minimum duration of a step")
    options = parser.parse_args()
    rank = int(os.environ["RANK"])
    print(f"rank {rank} started: pid {os.getpid()}", flush=True)
    # The store of torchrun keeps the addresses of killed ranks, which gloo then tries to reach: use a store for each start.
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    os.environ["MASTER_PORT"] = str(options.port + int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
    config = json.loads(options.config.read_text())
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled at first use
    deepspeed.init_distributed("gloo", verbose=False)
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**config["model"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config["deepspeed"])
    step = 0
    if (options.folder / "latest").exists():
        _, state = engine.load_checkpoint(str(options.folder))
        step = state["step"]
    while True:
        started = time.monotonic()
        step += 1
        rows = torch.randint(config["model"]["vocab_size"], (config["rows"], config["length"]))
        engine.backward(engine(input_ids=rows, labels=rows).loss)
        engine.step()
        if rank == 0:
            print(f"step {step}/ finished", flush=True)
        if step % options.save_every == 0:
            engine.save_checkpoint(str(options.folder), tag=f"step-{step}", client_state={"step": step})
        time.sleep(max(0.0, options.step_seconds - (time.monotonic() - started)))


if __name__ == "__main__":
    main()
