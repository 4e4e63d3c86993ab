"""One process of a torchrun of the tests: trains one run after another, and may strike itself in the midst of one.

    torchrun --nproc-per-node 4 tests/ranks.py '[{"args": ["--out", "run", …], "strike": [step, rank, "SIGTERM"]}]'

A strike is a signal to one rank alone, or "nan": its loss is no number. Each rank writes beside its run with what code
it ended, and how many addresses of a batch were its own.
Newton-Schulz runs in float32: rounded to bfloat16, sums of another order would show in the third digit.
"""

import json
import os
import signal
import sys

import torch
import torch.distributed as dist

from aunn_model.training import train
from pipelines import train as flow
from pipelines.cli.model import main

torch.Tensor.bfloat16 = torch.Tensor.float
torch.set_num_threads(1)
shares = []


def striking(strike):
    """The training loop, reporting (and saving, before a kill) after every step, with a strike if there is one."""
    at, rank, how = strike or (None, None, None)

    def struck(state, settings, batches, every):
        shares.append(len(batches(state.step)[0]))

        def batch_of(step):
            if (step, dist.get_rank()) == (at, rank):
                if how == "nan":
                    state.network.exit.register_forward_hook(lambda module, given, out: out * torch.nan)
                else:
                    os.kill(os.getpid(), signal.Signals[how])
            return batches(step)

        return train(state, settings, batch_of, report_every=0, every=every)

    return struck


def run(args, strike=None):
    """aunn-model train; returns its exit code."""
    flow.train = striking(strike)
    flow.CHECKPOINT_SECONDS = 0 if strike and strike[2] == "SIGKILL" else 60
    try:
        main(["train", "--quiet", *args], standalone_mode=False)
    except SystemExit as end:
        return end.code
    return 0


if __name__ == "__main__":
    dist.init_process_group("gloo")  # once: they find each other only once
    dist.init_process_group = dist.destroy_process_group = lambda *_: None
    for job in json.loads(sys.argv[1]):
        code = run(**job)
        out = job["args"][job["args"].index("--out") + 1]
        with open(f"{out}.exit-{os.environ['RANK']}", "w") as file:
            file.write(f"{code}, {shares[-1]} addresses")
