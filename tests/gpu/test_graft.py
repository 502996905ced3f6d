"""Grafts of GPU tensors: same values over every channel, own stream order, mixed ends, peers that die.

Runs on what there is: one GPU shared by both jobs, two, or four. Skipped where there is none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "ranks"))
from graft_jobs import Jobs, run_jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPUS = torch.cuda.device_count()
two_gpus = pytest.mark.skipif(GPUS < 2, reason="needs two CUDA devices")


def begin(role: str, rank: int, world: int, **options: Any) -> None:
    from twinrun.grafting.settings import Settings

    given = {"b2t": "name ~ 'x*'", "t2b": "name ~ 'y*'", "timeout_s": 30, **options}
    settings = Settings(role=role, **given)
    os.environ.update(settings.to_environment())
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(world)})


def end() -> str:
    """Leave the graft; the channel of what this rank sent last, or what went wrong."""
    from twinrun.grafting import joining

    session = joining._session
    assert session is not None
    other = "target" if session.rank.role == "baseline" else "baseline"
    peers = session.source.roster.others(other)
    told = {p.sending.over for p in peers if p.sending is not None and p.sending.over}
    channel = ", ".join(sorted(told or {p.channel for p in peers}))
    joining._leave()
    assert session.journal.failed == 0, session.journal.reasons
    assert not session.ended, session.ended
    return channel


def value(seed: int, *shape: int, device: Any = "cpu") -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.to(device)


def meet(step: int) -> None:
    """The baseline waits for the target, so that the target's orders of the last step are known."""
    import twinrun as tr

    tr.graft("y.ready", torch.full((1,), float(step)))


def busy(device: torch.device, rounds: int = 20) -> torch.Tensor:
    """Some milliseconds of work in flight on the current stream."""
    big = torch.ones(4096, 4096, device=device)
    for _ in range(rounds):
        big = big @ big * 1e-4
    return big


def both_ways(
    role: str,
    rank: int,
    world: int,
    devices: dict[str, str],
    expandable: bool = False,
    **options: Any,
) -> str:
    """Each side on its own device and stream; senders overwrite what they gave at once."""
    import twinrun as tr

    begin(role, rank, world, **options)
    device = torch.device(devices[role])
    if expandable:
        torch.cuda.memory._set_allocator_settings("expandable_segments:True")
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with torch.cuda.stream(stream):
        for step in range(5):
            for name, giver, shape in (("x", "baseline", (3 << 20,)), ("y", "target", (70, 50))):
                expected = value(100 * step + len(shape), *shape)
                if role == giver:
                    if stream is not None:
                        busy(device)
                    x = expected.to(device, non_blocking=True)
                    tr.graft(name, x.t() if x.dim() == 2 else x)
                    x.zero_()
                    continue
                local = torch.full(shape, -1.0, device=device)
                if stream is not None:
                    busy(device, 3)
                got = tr.graft(name, local.t() if local.dim() == 2 else local)
                assert got.device == device
                assert torch.equal(got.cpu(), expected.t() if expected.dim() == 2 else expected)
            tr.step()
    return end()


HOST = "host memory over shared memory (cuda ipc: "


@pytest.mark.parametrize(
    ("devices", "over"),
    [
        (("cuda:0", "cuda:0"), {"baseline": "cuda ipc", "target": "cuda ipc"}),
        pytest.param(
            ("cuda:0", "cuda:1"), {"baseline": "cuda ipc", "target": "cuda ipc"}, marks=two_gpus
        ),
        (("cuda:0", "cpu"), {"baseline": HOST, "target": "shared memory"}),
        (("cpu", "cuda:0"), {"baseline": "shared memory", "target": HOST}),
    ],
)
def test_device_ends_get_the_others_values(devices: tuple[str, str], over: dict[str, str]) -> None:
    """One GPU shared by both jobs, one each, and a GPU on one end only, over the best channel."""
    named = dict(zip(("baseline", "target"), devices, strict=True))
    ends = run_jobs(both_ways, devices=named)
    for (role, _), channel in ends.items():
        assert channel.startswith(over[role]), ends


@pytest.mark.parametrize("target", ["cuda:0", pytest.param("cuda:1", marks=two_gpus)])
def test_expandable_segments_change_nothing(target: str) -> None:
    """What torch's allocator does with the program's memory does not matter to a graft."""
    ends = run_jobs(both_ways, devices={"baseline": "cuda:0", "target": target}, expandable=True)
    assert set(ends.values()) == {"cuda ipc"}


@two_gpus
def test_nccl_where_it_is_asked_for() -> None:
    """On a communicator of its own for each direction, with the reason in the log."""
    ends = run_jobs(both_ways, devices={"baseline": "cuda:0", "target": "cuda:1"}, channel="nccl")
    assert set(ends.values()) == {"nccl (cuda ipc: nccl was asked for)"}


def test_nccl_is_not_for_one_gpu() -> None:
    """Two processes on one GPU cannot have a communicator: the host takes over and says so."""
    ends = run_jobs(
        both_ways, devices=dict.fromkeys(("baseline", "target"), "cuda:0"), channel="nccl"
    )
    assert all("nccl: both use one GPU" in channel for channel in ends.values())


def test_the_host_where_it_is_asked_for() -> None:
    """Through host memory, with the same values."""
    ends = run_jobs(
        both_ways, devices=dict.fromkeys(("baseline", "target"), "cuda:0"), channel="host"
    )
    assert set(ends.values()) == {"host memory over shared memory (cuda ipc: host was asked for)"}


def invisible(role: str, rank: int, world: int, **options: Any) -> str:
    os.environ["CUDA_VISIBLE_DEVICES"] = "0" if role == "baseline" else "1"
    return both_ways(role, rank, world, dict.fromkeys(("baseline", "target"), "cuda:0"), **options)


@two_gpus
def test_jobs_that_do_not_see_each_others_gpus() -> None:
    """--baseline-gpus 0 --target-gpus 1: each sees only its own as cuda:0, and IPC still works."""
    assert set(run_jobs(invisible).values()) == {"cuda ipc"}


def resharded(role: str, rank: int, world: int, **options: Any) -> str:
    """Columns to columns of another number, rows to columns, and a pending sum, in bf16 and float32."""
    import twinrun as tr

    begin(role, rank, world, mesh=f"tp={world}", **options)
    device = torch.device("cuda", (rank + (1 if role == "target" else 0)) % GPUS)
    torch.cuda.set_device(device)
    for step in range(4):
        meet(step)
        for at, dtype in enumerate((torch.float32, torch.bfloat16)):
            whole = value(10 * step + at, 512, 1024).to(dtype)
            mine = whole.chunk(world, 1)[rank].contiguous().to(device)
            if role == "baseline":
                rows = whole.chunk(world, 0)[rank].contiguous().to(device)
                tr.graft(f"x.cols{at}", mine, dims="t h[tp]")
                tr.graft(f"x.rows{at}", rows, dims="t[tp] h")
                part = (whole.float() * (rank + 1)).to(device)
                tr.graft(f"x.sums{at}", part, dims="t h[tp:partial]")
                continue
            blank = torch.full_like(mine, -1)
            for name in (f"x.cols{at}", f"x.rows{at}"):
                assert torch.equal(tr.graft(name, blank, dims="t h[tp]"), mine), name
            sums = tr.graft(f"x.sums{at}", torch.zeros(512, 1024, device=device), dims="t h")
            times = sum(range(1, options["baseline_ranks"] + 1))
            assert torch.allclose(sums.cpu(), whole.float() * times, rtol=1e-5)
        tr.step()
    return end()


@pytest.mark.parametrize(("baseline", "target"), [(4, 2), (2, 4), (2, 2)])
def test_unequal_layouts_are_resharded(baseline: int, target: int) -> None:
    """Every receiver gets exactly its boxes from every GPU that holds them."""
    ends = run_jobs(resharded, baseline, target, baseline_ranks=baseline)
    assert {ends["baseline", rank] for rank in range(baseline)} == {"cuda ipc"}


def many(role: str, rank: int, world: int, where: str, **options: Any) -> str:
    """Sizes and dtypes of all sorts, orders that differ, two streams in turn, a sender far ahead."""
    import twinrun as tr

    begin(role, rank, world, buffer_bytes=64 << 20, **options)
    device = torch.device("cuda:0" if role == "baseline" else where)
    streams = [torch.cuda.Stream(device), torch.cuda.Stream(device)]
    sizes = [1, 3, 1000, 4097, 1 << 20, 5_000_001]
    dtypes = [torch.float32, torch.bfloat16, torch.uint8, torch.float64, torch.bool]
    for step in range(12):
        meet(step)
        order = list(enumerate(sizes))
        if role == "target":
            order.reverse()
            torch.cuda.synchronize(device)
        for at, size in order:
            dtype = dtypes[(at + step) % len(dtypes)]
            made = (value(step * 10 + at, size) * 8).to(dtype)
            with torch.cuda.stream(streams[(at + step) % 2]):
                if role == "baseline":
                    x = made.to(device)
                    tr.graft(f"x{at}.{step % 5}", x)
                    x.zero_()
                else:
                    got = tr.graft(f"x{at}.{step % 5}", torch.zeros_like(made, device=device))
                    assert torch.equal(got.cpu(), made), (step, at)
        tr.step()
    return end()


@pytest.mark.parametrize("target", ["cuda:0", pytest.param("cuda:1", marks=two_gpus)])
def test_many_values_keep_their_order(target: str) -> None:
    """Blocks, slots and streams are used again and again, and never too early."""
    assert run_jobs(many, where=target)["baseline", 0].startswith("cuda ipc")


def in_flight(role: str, rank: int, world: int, where: str, **options: Any) -> str:
    """The receiver uses each value behind much work, lets go of it at once, and waits for nothing."""
    import twinrun as tr

    begin(role, rank, world, log="off", **options)
    device = torch.device("cuda:0" if role == "baseline" else where)
    stream, taken = torch.cuda.Stream(device), []
    with torch.cuda.stream(stream):
        for step in range(24):
            meet(step)
            x = torch.full((3 << 20,), float(step if role == "baseline" else -1), device=device)
            got = tr.graft("x", x)
            if role == "target":
                busy(device, 6)
                taken.append((got[::997] * 2, got.sum(dtype=torch.float64)))
            x.zero_()
            del got, x
            tr.step()
    for step, (some, total) in enumerate(taken):
        assert torch.equal(some, torch.full_like(some, 2.0 * step)), step
        assert total.item() == step * (3 << 20)
    return end()


@pytest.mark.parametrize("target", ["cuda:0", pytest.param("cuda:1", marks=two_gpus)])
def test_memory_that_is_still_to_be_read_is_not_written_again(target: str) -> None:
    """A value's memory goes to the next one only when the device is done with it, however late that is."""
    assert run_jobs(in_flight, where=target)["baseline", 0] == "cuda ipc"


def outlives(role: str, rank: int, world: int, where: str, **options: Any) -> str:
    import gc

    import twinrun as tr
    from twinrun.grafting import joining

    begin(role, rank, world, **options)
    device = torch.device("cuda:0" if role == "baseline" else where)
    torch.zeros(1, device=device)
    before, kept = torch.cuda.memory_reserved(device), []
    for step in range(6):
        meet(step)
        x = torch.full((5 << 20,), float(step if role == "baseline" else -1), device=device)
        kept.append(tr.graft("x", x))
        tr.step()
    channel = end()
    joining._session = None
    gc.collect()
    torch.cuda.empty_cache()
    noise = [torch.full((5 << 20,), 99.0, device=device) for _ in range(12)]
    assert all(bool((x == float(step)).all()) for step, x in enumerate(kept))
    del noise, kept, x
    gc.collect()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_reserved(device) - before
    assert left <= 4 << 20, f"{left >> 20} MiB are still reserved"
    return channel


@pytest.mark.parametrize("target", ["cuda:0", pytest.param("cuda:1", marks=two_gpus)])
def test_what_was_received_outlives_the_graft(target: str) -> None:
    """Received tensors are the program's own; once it drops them, nothing of the graft's memory is left."""
    assert run_jobs(outlives, where=target)["baseline", 0] == "cuda ipc"


def gradients(role: str, rank: int, world: int, how: str, **options: Any) -> bool:
    import twinrun as tr

    begin(role, rank, world, **options)
    for step in range(3):
        meet(step)
        w = torch.full((1000,), 2.0 + step, device="cuda", requires_grad=True)
        x = tr.graft("x", w * (3.0 if role == "baseline" else 5.0), gradient=how)
        (x * x).sum().backward()
        if role == "target":
            assert torch.equal(x.detach(), torch.full_like(x, (2.0 + step) * 3))
            if how == "through":
                assert w.grad is not None and torch.equal(w.grad, 2 * x.detach() * 5)
            else:
                assert w.grad is None and x.grad is not None
        tr.step()
    return bool(end())


@pytest.mark.parametrize("how", ["through", "leaf"])
def test_gradients_flow_as_asked(how: str) -> None:
    """A grafted GPU value is a leaf, or lets the gradient through to the original."""
    assert all(run_jobs(gradients, how=how).values())


def dies(
    role: str, rank: int, world: int, victim: str, channel: str, where: str, **options: Any
) -> str:
    import twinrun as tr
    from twinrun.grafting import joining

    begin(role, rank, world, channel=channel, **{**options, "timeout_s": 10})
    device = torch.device("cuda:0" if role == "baseline" else where)
    x = torch.full((1 << 22,), 1.0 if role == "baseline" else 2.0, device=device)
    began = time.monotonic()
    for step in range(40):
        meet(step)
        if role == victim and step == 6:
            busy(device, 50)  # it dies in the middle of its own work
            tr.graft("x", x)
            os.kill(os.getpid(), signal.SIGKILL)
        got = tr.graft("x", x)
        torch.cuda.synchronize(device)
        if joining._session is not None and joining._session.ended:
            break
        tr.step()
    session = joining._session
    assert session is not None
    assert float((x + got).sum()) in (2.0 * x.numel(), 3.0 * x.numel(), 4.0 * x.numel())
    joining._leave()
    assert time.monotonic() - began < 60
    return session.ended


@pytest.mark.parametrize("victim", ["baseline", "target"])
@pytest.mark.parametrize(
    ("channel", "target"),
    [
        ("auto", "cuda:0"),
        pytest.param("auto", "cuda:1", marks=two_gpus),
        pytest.param("nccl", "cuda:1", marks=two_gpus),
    ],
)
def test_a_killed_peer_is_named_and_the_gpu_still_works(
    victim: str, channel: str, target: str
) -> None:
    """The survivor learns who died within the timeout, and goes on computing ungrafted."""
    jobs = Jobs(dies, 1, 1, victim=victim, channel=channel, where=target)
    ends = jobs.results(killed=((victim, 0),))
    (told,) = ends.values()
    assert f"{victim} rank 0" in told


def joined(context: Any) -> torch.Tensor:
    """A transform: the senders' values one after the other, times what each sent beside them."""
    assert all(part.is_cuda for part in context.received) and context.target.is_cuda
    parts = zip(context.received, context.extras, strict=True)
    return torch.cat([part * extras["times"] + extras["plus"] for part, extras in parts])


def transformed(role: str, rank: int, world: int, **options: Any) -> bool:
    import twinrun as tr

    begin(role, rank, world, transforms=(f"x={__name__}.joined",), **options)
    device = torch.device("cuda", rank % GPUS)
    torch.cuda.set_device(device)
    for step in range(3):
        meet(step)
        if role == "baseline":
            extras = {"times": rank + 2, "plus": torch.full((3,), float(step), device=device)}
            tr.graft("x", value(step + rank, 4, 3, device=device), extras=extras)
        else:
            got = tr.graft("x", torch.zeros(8, 3, device=device))
            wanted = [value(step + r, 4, 3) * (r + 2) + step for r in range(2)]
            assert torch.allclose(got.cpu(), torch.cat(wanted)), step
        tr.step()
    return bool(end())


def test_transforms_get_whole_values_on_the_gpu() -> None:
    """Two senders' values and the tensors beside them come on the target's device."""
    assert all(run_jobs(transformed, 2, 1).values())


PROGRAM = """
    import sys, torch
    from torch import nn

    torch.manual_seed(1 if "other" in sys.argv else 0)
    layers = [nn.Linear(256, 256) for _ in range(3)]
    net = nn.Sequential(*layers).cuda()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with open(sys.argv[1], "w") as out:
        for step in range(6):
            x = torch.randn(64, 256, generator=torch.Generator().manual_seed(step)).cuda()
            if "other" in sys.argv:
                x = x * 1.5  # only grafted values can be equal
            loss = net(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums = [p.double().sum().item() for p in net.parameters()]
            print(step, loss.item().hex(), [s.hex() for s in sums], file=out)
"""


@pytest.mark.parametrize("gpus", [("0", "0"), pytest.param(("0", "1"), marks=two_gpus)])
def test_a_program_on_the_gpu_is_grafted_as_it_is(tmp_path: Path, gpus: tuple[str, str]) -> None:
    """The baseline's weights and inputs make the target's training its own; outputs flow back."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    python = f"{sys.executable} {path}"
    words = [
        sys.executable, "-m", "twinrun", "graft", "--out", str(tmp_path / "out"),
        "--baseline", f"{python} {tmp_path / 'a'}", "--target", f"{python} {tmp_path / 'b'} other",
        "--baseline-gpus", gpus[0], "--target-gpus", gpus[1],
        "--b2t", "kind == 'parameter' or name == '0:input.input'", "--t2b", "name == '2:output'",
    ]  # fmt: skip
    import twinrun

    where = {**os.environ, "PYTHONPATH": str(Path(twinrun.__file__).parents[1])}
    ended = subprocess.run(words, capture_output=True, text=True, timeout=150, env=where)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    told = "".join(p.read_text() for p in tmp_path.rglob("baseline-*.jsonl"))
    assert '"channel":"cuda ipc"' in told, told[:2000]
