"""The program of the suite under msprobe's debugger, as its documentation says to put it in.

python -m benchmarks.faults.tools.msprobe_program run DIR --msprobe-config FILE ...
"""

from __future__ import annotations

import argparse
import sys
import warnings

import torch.distributed as dist
import transformers
from benchmarks.faults import program
from msprobe.pytorch import PrecisionDebugger, seed_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--msprobe-config", required=True)
    own, rest = parser.parse_known_args()
    given = program.parse(rest)
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    seed_all()
    debugger = PrecisionDebugger(config_path=own.msprobe_config)
    model = program.build(given)
    debugger.start(model)
    program.drive(model, given.mode, given.seed)
    debugger.stop()
    debugger.step()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
