"""The table of variables: one row each. Adding a variable is adding a row.

After a change run ``twinrun env --markdown > docs/env.md`` and update the frozen list that
``tests/pure/test_env_frozen.py`` names.
"""

from __future__ import annotations

from twinrun.env.kinds import Choice, Directory, Flag, Integer, Number, Size, Text
from twinrun.env.origin import ORIGINS as _ORIGINS
from twinrun.env.registry import declare

# --- env -------------------------------------------------------------------------------------
ORIGINS = declare(
    _ORIGINS, Text(), None, room="env",
    help="written by Twinrun for its children: which values a flag or a launch rule set",
)  # fmt: skip

# --- collectives -----------------------------------------------------------------------------
SYMMETRIC_ALL_REDUCE = declare(
    "TWINRUN_SYMMETRIC_ALL_REDUCE", Flag(), True, room="collectives",
    help="use the symmetric-memory all-reduce where a group lies inside one node",
)  # fmt: skip
IPC_ALL_REDUCE = declare(
    "TWINRUN_IPC_ALL_REDUCE", Flag(), True, room="collectives",
    help="use the all-reduce over CUDA IPC handles where symmetric memory cannot be had",
)  # fmt: skip
SHARED_MEMORY_ALL_REDUCE = declare(
    "TWINRUN_SHARED_MEMORY_ALL_REDUCE", Flag(), True, room="collectives",
    help="use the shared-memory all-reduce between CPU ranks of one host",
)  # fmt: skip
ALL_REDUCE = declare(
    "TWINRUN_ALL_REDUCE",
    Choice(("auto", "symmetric", "ipc", "nccl", "gloo", "shared_memory", "aiter")),
    "auto", room="collectives",
    help="the all-reduce backend asked for by name; auto chooses and says why",
)  # fmt: skip
ALL_REDUCE_ORDER = declare(
    "TWINRUN_ALL_REDUCE_ORDER", Choice(("ranks", "tree", "any")), "ranks", room="collectives",
    help="the order in which an all-reduce sums where the call names none",
)  # fmt: skip
ALL_REDUCE_CHECK = declare(
    "TWINRUN_ALL_REDUCE_CHECK", Flag(), False, room="collectives",
    help="checked mode: a rank that never arrives is reported instead of waited for",
)  # fmt: skip
ALL_REDUCE_TIMEOUT_S = declare(
    "TWINRUN_ALL_REDUCE_TIMEOUT_S", Number(least=0.1), 300.0, room="collectives", unit="s",
    help="how long an all-reduce waits for a rank before it names it",
)  # fmt: skip
DETERMINISTIC = declare(
    "TWINRUN_DETERMINISTIC", Flag(), False, room="collectives",
    help="every all-reduce sums in its stated order, also where only a library backend is left",
)  # fmt: skip
KEEP_IN_NODE_ALL_REDUCE = declare(
    "TWINRUN_KEEP_IN_NODE_ALL_REDUCE", Flag(), False, room="collectives",
    help="across nodes, keep the in-node all-reduce for groups that lie inside one node",
)  # fmt: skip

ALL_REDUCE_STREAMS = declare(
    "TWINRUN_ALL_REDUCE_STREAMS", Integer(least=1, most=8), 2, room="collectives", unit="streams",
    help="how many AllReduce may run at once on one GPU; their grids are cut so that all fit",
)  # fmt: skip
ALL_REDUCE_GRAPH_INPUTS = declare(
    "TWINRUN_ALL_REDUCE_GRAPH_INPUTS", Flag(), True, room="collectives",
    help="let an all-reduce captured in a CUDA graph read its input in place",
)  # fmt: skip
LOG = declare(
    "TWINRUN_LOG", Choice(("debug", "info", "warning", "error")), None, room="env",
    help="print Twinrun's own log from this level on to stderr; unset, Python's logging decides",
)  # fmt: skip

# --- topology --------------------------------------------------------------------------------
NODE_ID = declare(
    "TWINRUN_NODE_ID", Text(), None, room="topology",
    help="the identity of this node, instead of the one found from the boot id and host name",
)  # fmt: skip

# --- launch ----------------------------------------------------------------------------------
NNODES = declare(
    "TWINRUN_NNODES", Integer(least=1), None, room="launch", unit="nodes",
    help="written by twinrun launch: how many nodes the run spans",
)  # fmt: skip

CUDA_GRAPH = declare(
    "TWINRUN_CUDA_GRAPH", Flag(), False, room="launch",
    help="the program captures CUDA graphs (twinrun launch --cuda-graph)",
)  # fmt: skip

# --- kernels ---------------------------------------------------------------------------------
KERNEL_CACHE = declare(
    "TWINRUN_KERNEL_CACHE", Directory(), None, room="kernels",
    help="directory of compiled kernels; by default twinrun/kernels in the user's cache",
)  # fmt: skip

# --- other programs' variables, read and never judged until they are needed -------------------
RANK = declare("RANK", Integer(least=0), None, room="torchrun", help="rank of this process")
WORLD_SIZE = declare(
    "WORLD_SIZE", Integer(least=1), None, room="torchrun", help="number of ranks", unit="ranks"
)
LOCAL_RANK = declare(
    "LOCAL_RANK", Integer(least=0), None, room="torchrun", help="rank among those of this node"
)
LOCAL_WORLD_SIZE = declare(
    "LOCAL_WORLD_SIZE", Integer(least=1), None, room="torchrun", unit="ranks",
    help="number of ranks on this node",
)  # fmt: skip
GROUP_RANK = declare(
    "GROUP_RANK", Integer(least=0), None, room="torchrun", help="rank of this node's agent"
)
GROUP_WORLD_SIZE = declare(
    "GROUP_WORLD_SIZE", Integer(least=1), None, room="torchrun", unit="nodes",
    help="number of agents, one a node",
)  # fmt: skip
MASTER_ADDR = declare("MASTER_ADDR", Text(), None, room="torchrun", help="host of the store")
MASTER_PORT = declare(
    "MASTER_PORT", Integer(least=1, most=65535), None, room="torchrun", help="port of the store"
)
CUDA_VISIBLE_DEVICES = declare(
    "CUDA_VISIBLE_DEVICES", Text(empty=True), None, room="cuda",
    help="GPUs that CUDA may see: indices, UUIDs or MIG instances",
)  # fmt: skip
PYTORCH_CUDA_ALLOC_CONF = declare(
    "PYTORCH_CUDA_ALLOC_CONF", Text(empty=True), None, room="torch",
    help="options of torch's CUDA allocator (before torch 2.10)",
)  # fmt: skip
PYTORCH_ALLOC_CONF = declare(
    "PYTORCH_ALLOC_CONF", Text(empty=True), None, room="torch",
    help="options of torch's allocators",
)  # fmt: skip
TORCH_SYMM_MEM_DISABLE_MULTICAST = declare(
    "TORCH_SYMM_MEM_DISABLE_MULTICAST", Flag(), False, room="torch",
    help="keep torch's symmetric memory from making an NVLink multicast object",
)  # fmt: skip
NCCL_GRAPH_MIXING_SUPPORT = declare(
    "NCCL_GRAPH_MIXING_SUPPORT", Flag(), True, room="nccl",
    help="let NCCL be captured in one CUDA graph and called outside it at the same time",
)  # fmt: skip
OMP_NUM_THREADS = declare(
    "OMP_NUM_THREADS", Text(), None, room="torch", help="CPU threads of one process"
)
SLURM_JOB_ID = declare(
    "SLURM_JOB_ID", Integer(least=0), None, room="slurm", help="number of the job"
)
SLURM_STEP_ID = declare("SLURM_STEP_ID", Text(), None, room="slurm", help="set inside srun only")
SLURM_PROCID = declare("SLURM_PROCID", Integer(least=0), None, room="slurm", help="task number")
SLURM_LOCALID = declare(
    "SLURM_LOCALID", Integer(least=0), None, room="slurm", help="task number on this node"
)
SLURM_NODEID = declare("SLURM_NODEID", Integer(least=0), None, room="slurm", help="node number")
SLURM_NTASKS = declare(
    "SLURM_NTASKS", Integer(least=1), None, room="slurm", help="tasks of the job", unit="ranks"
)
SLURM_STEP_NUM_TASKS = declare(
    "SLURM_STEP_NUM_TASKS", Integer(least=1), None, room="slurm", unit="ranks",
    help="tasks of the step",
)  # fmt: skip
SLURM_NNODES = declare(
    "SLURM_NNODES", Integer(least=1), None, room="slurm", help="nodes of the job", unit="nodes"
)
SLURM_STEP_NUM_NODES = declare(
    "SLURM_STEP_NUM_NODES", Integer(least=1), None, room="slurm", unit="nodes",
    help="nodes of the step",
)  # fmt: skip
SLURM_JOB_NODELIST = declare(
    "SLURM_JOB_NODELIST", Text(), None, room="slurm", help="hosts of the job"
)
SLURM_STEP_NODELIST = declare(
    "SLURM_STEP_NODELIST", Text(), None, room="slurm", help="hosts of the step"
)
SLURM_GPUS_ON_NODE = declare(
    "SLURM_GPUS_ON_NODE", Integer(least=0), None, room="slurm", unit="GPUs",
    help="GPUs that the job has on this node",
)  # fmt: skip
OMPI_COMM_WORLD_SIZE = declare(
    "OMPI_COMM_WORLD_SIZE", Integer(least=1), None, room="open_mpi", unit="ranks",
    help="number of processes",
)  # fmt: skip
OMPI_COMM_WORLD_RANK = declare(
    "OMPI_COMM_WORLD_RANK", Integer(least=0), None, room="open_mpi", help="rank of this process"
)
OMPI_COMM_WORLD_LOCAL_SIZE = declare(
    "OMPI_COMM_WORLD_LOCAL_SIZE", Integer(least=1), None, room="open_mpi", unit="ranks",
    help="number of processes on this node",
)  # fmt: skip

# --- recorder --------------------------------------------------------------------------------
OUT = declare(
    "TWINRUN_OUT", Directory(), None, room="recorder",
    help="the run directory that every process of twinrun run joins",
)  # fmt: skip
NOTES = declare(
    "TWINRUN_NOTES", Directory(), None, room="recorder",
    help="written by twinrun run: where processes leave notes for its summary",
)  # fmt: skip
PYTHONPATH = declare(
    "PYTHONPATH", Text(empty=True), None, room="python",
    help="where Python looks first for modules; twinrun run puts its boot directory in front",
)  # fmt: skip
OPTIONS = declare(
    "TWINRUN_OPTIONS", Text(), None, room="recorder",
    help="written by twinrun run: options of the run directory where a process must make its own",
)  # fmt: skip

# --- grafting --------------------------------------------------------------------------------
GRAFT_ROLE = declare(
    "TWINRUN_GRAFT_ROLE", Choice(("baseline", "target")), None, room="grafting",
    help="take part in a graft, as this side of it",
)  # fmt: skip
GRAFT_ADDRESS = declare(
    "TWINRUN_GRAFT_ADDRESS", Text(), None, room="grafting",
    help="HOST:PORT where the two jobs of a graft meet",
)  # fmt: skip
GRAFT_B2T = declare(
    "TWINRUN_GRAFT_B2T", Text(), None, room="grafting",
    help="filter of the points that flow from the baseline to the target",
)  # fmt: skip
GRAFT_T2B = declare(
    "TWINRUN_GRAFT_T2B", Text(), None, room="grafting",
    help="filter of the points that flow from the target to the baseline",
)  # fmt: skip
GRAFT_BASELINE_RANKS = declare(
    "TWINRUN_GRAFT_BASELINE_RANKS", Integer(least=1), None, room="grafting", unit="ranks",
    help="how many ranks the baseline must have",
)  # fmt: skip
GRAFT_TARGET_RANKS = declare(
    "TWINRUN_GRAFT_TARGET_RANKS", Integer(least=1), None, room="grafting", unit="ranks",
    help="how many ranks the target must have",
)  # fmt: skip
GRAFT_TRANSFORMS = declare(
    "TWINRUN_GRAFT_TRANSFORMS", Text(), None, room="grafting",
    help="[GLOB=]pkg.module.function, one a line, called on the receiving side",
)  # fmt: skip
GRAFT_DIMS = declare(
    "TWINRUN_GRAFT_DIMS", Text(), None, room="grafting",
    help="[baseline:|target:]GLOB=DIMS, one a line: layouts of points that carry none",
)  # fmt: skip
GRAFT_LAYOUTS = declare(
    "TWINRUN_GRAFT_LAYOUTS", Directory(), None, room="grafting",
    help="JSON file of layouts of points that carry none; both sides need the same contents",
)  # fmt: skip
GRAFT_TIMEOUT_S = declare(
    "TWINRUN_GRAFT_TIMEOUT_S", Number(least=0.01), None, room="grafting", unit="s",
    help="how long a point is waited for (300)",
)  # fmt: skip
GRAFT_MEETING_TIMEOUT_S = declare(
    "TWINRUN_GRAFT_MEETING_TIMEOUT_S", Number(least=0.01), None, room="grafting", unit="s",
    help="how long the other job is waited for before it has come (1800)",
)  # fmt: skip
GRAFT_BUFFER = declare(
    "TWINRUN_GRAFT_BUFFER", Size(), None, room="grafting", unit="bytes",
    help="how much a rank stages for receivers that are elsewhere (1GiB)",
)  # fmt: skip
GRAFT_LOG = declare(
    "TWINRUN_GRAFT_LOG", Choice(("full", "brief", "off")), None, room="grafting",
    help="a line a graft with statistics, without them, or none",
)  # fmt: skip
GRAFT_STRICT = declare(
    "TWINRUN_GRAFT_STRICT", Flag(), None, room="grafting",
    help="stop at the first point that fails instead of going on without it",
)  # fmt: skip
GRAFT_FROM = declare(
    "TWINRUN_GRAFT_FROM", Text(), None, room="grafting",
    help="the capture that stands in for the baseline",
)  # fmt: skip
GRAFT_TOKEN = declare(
    "TWINRUN_GRAFT_TOKEN", Text(), None, room="grafting",
    help="secret that both jobs share; without it one is made at the meeting",
)  # fmt: skip
GRAFT_MESH = declare(
    "TWINRUN_GRAFT_MESH", Text(), None, room="grafting",
    help="this side's rank grid, tp=2,dp=2, for points that carry no coordinates",
)  # fmt: skip
GRAFT_GRADIENT = declare(
    "TWINRUN_GRAFT_GRADIENT", Choice(("through", "leaf")), None, room="grafting",
    help="at module boundaries: gradients go through a replaced value, or end at it",
)  # fmt: skip
GRAFT_CHANNEL = declare(
    "TWINRUN_GRAFT_CHANNEL", Choice(("auto", "ipc", "nccl", "host")), None, room="grafting",
    help="what this side's GPU tensors travel over; auto takes the best that works and says why",
)  # fmt: skip
GRAFT_JOURNAL = declare(
    "TWINRUN_GRAFT_JOURNAL", Directory(), None, room="grafting",
    help="directory that gets a file of JSON lines from each process of a graft",
)  # fmt: skip
