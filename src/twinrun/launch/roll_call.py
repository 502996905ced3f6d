"""The nodes of a launch report to node 0, so that two that were given one rank are named.

torchrun itself waits for the rank that is missing until its rendezvous times out. A small process
beside it, forked before the launch becomes torchrun, sends this node's report to ``HOST:PORT`` by
UDP, the same number as the rendezvous' TCP port; on node rank 0 it also answers. It ends when all
nodes are there, when torchrun ends, or at a clash, which it prints before it ends torchrun. Where UDP
does not get through, nothing is noticed and nothing is lost.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

from twinrun.errors import LaunchError
from twinrun.launch.address import parse_address
from twinrun.launch.args import LaunchArgs
from twinrun.launch.roll import EVERY_S, MOST_BYTES, Report, Roll, read_answer, read_report

# Longer than any node waits for another; torchrun's own rendezvous gives up after 600 s.
_MOST_S = 900.0
# Node 0 answers on after the end, for those whose answer was lost.
_LINGER_S = 3.0


def call_beside(args: LaunchArgs) -> None:
    """Fork the roll call of a launch over several nodes; the caller goes on and becomes torchrun."""
    found = parse_address(args.dist_init_addr or "")
    if args.nodes <= 1 or isinstance(found, str):
        return
    report = Report(os.urandom(16).hex(), socket.gethostname(), args.node_rank or 0, args.nodes)
    launch = os.getpid()
    if os.fork():
        return
    # From here on in the child, which must leave no other way than by _exit.
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # torchrun's end is seen below
        trouble = call(report, *found, alive=lambda: os.getppid() == launch)
        if trouble is not None and os.getppid() == launch:
            sys.stderr.write(f"twinrun: error: {refusal(trouble)}\n")
            sys.stderr.flush()
            _end(launch)
    finally:
        os._exit(0)


def _end(launch: int) -> None:
    """Ask torchrun to end, again while it does not: as a container's first process it may not hear."""
    for _ in range(6):
        os.kill(launch, signal.SIGTERM)
        asked = time.monotonic()
        while time.monotonic() - asked < 5.0:
            if os.getppid() != launch:
                return
            time.sleep(0.1)


def refusal(trouble: str) -> LaunchError:
    """The clash as an error; every node of the launch prints it."""
    return LaunchError(
        "the nodes of this launch do not fit together.",
        seen=trouble,
        expected="each node its own --node-rank, and the same --nnodes on all",
        do="give the nodes ranks from 0 on, each once, and start them again",
    )


def call(report: Report, host: str, port: int, alive: Callable[[], bool]) -> str | None:
    """Report until all nodes are there (None) or two clash (how); None also once not ``alive``."""
    board = Roll(report.nodes)
    with _sender(host, port) as (mine, address), _listener(report, port) as heard:
        began, told, ends = time.monotonic(), None, None
        while alive() and time.monotonic() - began < _MOST_S:
            with contextlib.suppress(OSError):  # a network that is not there yet
                mine.sendto(report.message(), address)
            told = _listen(mine, heard, board, report.key) or told
            if told is not None:
                ends = ends or time.monotonic() + (_LINGER_S if heard else 0.0)
                if time.monotonic() >= ends:
                    break
    return told[1] if told else None


def _listen(
    mine: socket.socket, heard: socket.socket | None, board: Roll, key: str
) -> tuple[bool, str | None] | None:
    """Answer and be answered for one interval; what this node was told, if that ends the call."""
    until, found = time.monotonic() + EVERY_S, None
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([each for each in (mine, heard) if each], [], [], left)
        for one in ready:
            with contextlib.suppress(OSError):  # what an earlier report met on its way
                message, sender = one.recvfrom(MOST_BYTES)
                if one is heard:
                    _answer(one, board, message, sender)
                else:
                    answer = read_answer(message, key)
                    found = answer if answer and (answer[0] or answer[1]) else found
    return found


def _answer(heard: socket.socket, board: Roll, message: bytes, sender: tuple[str, int]) -> None:
    report = read_report(message)
    if report is not None:
        now = time.monotonic()
        board.take(report, sender[0].removeprefix("::ffff:"), now)
        heard.sendto(board.answer(report, now), sender)


@contextlib.contextmanager
def _sender(host: str, port: int) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        yield made, address  # type: ignore[misc]


@contextlib.contextmanager
def _listener(report: Report, port: int) -> Iterator[socket.socket | None]:
    """Node 0's end, for both kinds of addresses where there are both; None elsewhere."""
    if report.rank:
        yield None
        return
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        if both:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            made.bind(("", port))
        except OSError:  # another program's: nobody answers, so nothing is noticed
            yield None
        else:
            yield made
