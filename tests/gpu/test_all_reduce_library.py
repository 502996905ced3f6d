"""``AllReduce`` over NCCL on the GPUs of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.gpu

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0


@pytest.mark.parametrize("size", [2, 4])
def test_nccl_in_a_stated_order_and_odd_tensors(size: int) -> None:
    """Orders to the bit, odd tensors, subgroups, tested peer access and capture, on several GPUs."""
    if size > GPUS:
        pytest.skip(f"needs {size} CUDA GPUs, this machine has {GPUS}")
    worker = Path(__file__).with_name("library_worker.py")
    line = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", str(worker)]
    told = subprocess.run([sys.executable, *line], capture_output=True, text=True, timeout=240)
    assert told.returncode == 0, told.stderr[-4000:]
    assert told.stdout.count("RIGHT") == size
