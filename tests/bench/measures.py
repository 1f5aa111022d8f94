"""Measurements on a unix socket, one function for each.

A measure takes an agent's surroundings and returns figures by the keys of
tests.bench.figures. It is called for one agent and the next in turn, round by round, so
that whatever else the machine is doing meets both.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from tests.bench.agents import Agent, Contestant
from tests.bench.client import Client, request
from tests.bench.figures import SIZES

KIB, MIB = 1 << 10, 1 << 20
READ_LIMIT = 48 * MIB

Figures = dict[str, float]


class Size(NamedTuple):
    """Numbers of repetitions, and sizes of data in bytes.

    turns: how often each information command is measured within a round.
    copied, copied_slowly: by qgactl, and in the way of Ansible.
    passages: how often each way carries each file, there and back.
    """

    rounds: int
    pings: int
    calls: int
    turns: int
    transferred: int
    execs: int
    idle_seconds: float
    starts: int
    mixed_requests: int
    long_request: int
    crowd_of_children: int
    crowd_of_clients: int
    copied: int
    copied_slowly: int
    passages: int


FULL = Size(
    rounds=2,  # so that all of `make bench` stays below twelve minutes
    pings=4000,
    calls=200,
    turns=4,
    transferred=32 * MIB,
    execs=30,
    idle_seconds=2,
    starts=3,
    mixed_requests=1_000_000,
    long_request=60_000_000,
    crowd_of_children=200,
    crowd_of_clients=16,
    copied=64_000_000,
    copied_slowly=8_000_000,
    passages=3,
)
QUICK = FULL._replace(
    rounds=1,
    pings=200,
    calls=10,
    turns=1,
    transferred=8 * MIB,
    execs=3,
    idle_seconds=0.3,
    starts=1,
    mixed_requests=2_000,
    long_request=6_000_000,
    crowd_of_children=40,
)


class Stage(NamedTuple):
    """The surroundings of a measurement.

    agent: the one that runs throughout; contestant: of which fresh ones can be started.
    folder: in memory, for files to write.
    file: to read, `size.transferred` bytes.
    commands: the information commands that all agents can answer.
    """

    contestant: Contestant
    agent: Agent
    folder: Path
    file: Path
    commands: tuple[str, ...]
    size: Size

    @contextmanager
    def fresh_agent(self) -> Iterator[Agent]:
        with Agent(self.contestant, self.folder / f"fresh-{self.contestant.name}") as agent:
            yield agent


Measure = Callable[[Stage], Figures]

PING = request("guest-ping")

SHORT = 64 * 1024
"""Bytes up to which a request for a file is timed on one processor: a round trip takes less than
what the scheduler makes of two."""

WARM_UP = 20
"""Unmeasured round trips at first: they fill caches, and an emulator translates the code."""


def ping(stage: Stage) -> Figures:
    count = stage.size.pings
    with stage.agent.beside_us(), stage.agent.connect() as client:
        client.time_exchanges(PING, WARM_UP)
        before = stage.agent.cpu_time()
        times = client.time_exchanges(PING, count)
        processor_time = (stage.agent.cpu_time() - before) / count / 1e3
        return {**ping_figures(times), "ping cpu": processor_time}


def ping_figures(times: list[int]) -> Figures:
    return {"ping p50": median(times) / 1e3, "ping p99": quantiles(times, n=100)[98] / 1e3}


def time_command(command: str, stage: Stage) -> Figures:
    with stage.agent.beside_us(), stage.agent.connect() as client:
        client.time_exchanges(request(command), WARM_UP)
        return {f"call {command}": median_time(client, command, stage.size.calls)}


def median_time(client: Client, command: str, calls: int) -> float:
    """Microseconds for a round trip."""
    return median(client.time_exchanges(request(command), calls)) / 1e3


def information_commands(client: Client) -> Iterator[str]:
    """Those to which the agent replies without an error on this machine."""
    for entry in client.call("guest-info")["supported_commands"]:
        name = entry["name"]
        informs = name == "guest-info" or name.startswith(("guest-get-", "guest-network-get-"))
        if informs and b'"error"' not in client.exchange(request(name)):
            yield name


def child(stage: Stage) -> Figures:
    with stage.agent.connect() as client:
        times = [_time_child(client) for _ in range(stage.size.execs)]
    return {"exec": median(times) * 1e3}


def _time_child(client: Client) -> float:
    begin = time.perf_counter()
    pid = client.call("guest-exec", path="/bin/true")["pid"]
    look = request("guest-exec-status", pid=pid)
    while b'"exited": true' not in client.exchange(look):
        time.sleep(0.0001)
    return time.perf_counter() - begin


def file_transfer(stage: Stage) -> Figures:
    path = str(stage.folder / f"transfer-{stage.contestant.name}")
    figures = {}
    with stage.agent.connect() as client:
        for count in SIZES:
            repeat = max(1, stage.size.transferred // count)
            with stage.agent.beside_us() if count <= SHORT else nullcontext():
                figures[f"write {count}"] = write_throughput(client, path, count, repeat)
                figures[f"read {count}"] = read_throughput(client, str(stage.file), count, repeat)
    os.unlink(path)
    return figures


def write_throughput(client: Client, path: str, count: int, repeat: int) -> float:
    """Megabytes a second that guest-file-write takes, `count` bytes a request."""
    handle = client.call("guest-file-open", path=path, mode="w")
    data = write_request(handle, count)
    begin = time.perf_counter()
    for _ in range(repeat):
        client.exchange_unseen(data)
    seconds = time.perf_counter() - begin
    client.call("guest-file-close", handle=handle)
    return count * repeat / seconds / 1e6


def write_request(handle: int, count: int) -> bytes:
    return request("guest-file-write", handle=handle, buf_b64=b64encode(os.urandom(count)).decode())


def read_throughput(client: Client, path: str, count: int, repeat: int) -> float:
    """Megabytes a second that guest-file-read gives, `count` bytes a request."""
    handle = client.call("guest-file-open", path=path, mode="r")
    data = request("guest-file-read", handle=handle, count=count)
    begin = time.perf_counter()
    for _ in range(repeat):
        client.exchange_unseen(data)
    seconds = time.perf_counter() - begin
    client.call("guest-file-close", handle=handle)
    return count * repeat / seconds / 1e6


def writes_for_a_reply(stage: Stage) -> Figures:
    """First 1 MiB, then the reply for 768 KiB of a file."""
    with stage.agent.connect() as client:
        handle = client.call("guest-file-open", path="/dev/zero", mode="r")
        before = stage.agent.writes()
        client.exchange_unseen(request("guest-file-read", handle=handle, count=MIB // 4 * 3))
        client.exchange_unseen(PING)
        writes = stage.agent.writes() - before
        client.call("guest-file-close", handle=handle)
    return {"writes": writes}


def peak_memory(stage: Stage) -> Figures:
    with stage.fresh_agent() as agent, agent.connect() as client:
        handle = client.call("guest-file-open", path="/dev/zero", mode="r")
        client.call("guest-file-read", handle=handle)
        idle = agent.memory("VmRSS")
        agent.reset_peak()
        client.exchange_unseen(request("guest-file-read", handle=handle, count=READ_LIMIT))
        client.exchange_unseen(PING)
        return {
            "peak memory": agent.memory("VmHWM") / 1e6,
            "memory kept": (agent.memory("VmRSS") - idle) / 1e6,
        }


def start(stage: Stage) -> Figures:
    seconds, memory = [], []
    for _ in range(stage.size.starts):
        with stage.fresh_agent() as agent:
            seconds.append(agent.seconds_to_answer)
            memory.append(agent.idle_memory)
    return {"start": median(seconds) * 1e3, "idle memory": median(memory) / 1e6}


def long_request(stage: Stage) -> Figures:
    """CPU time of a request in 4 KiB pieces, what memory it leaves, and one of a tenth of it."""
    long, short = stage.size.long_request, stage.size.long_request // 10
    with stage.fresh_agent() as agent, agent.connect() as client:
        handle = client.call("guest-file-open", path="/dev/null", mode="w")
        times = [_time_pieces(agent, client, handle, count) for count in (short, long)]
        client.exchange_unseen(PING)
        time.sleep(0.1)  # the thread that wrote it may let go of it after the reply
        kept = agent.memory("VmRSS") - agent.idle_memory
    return {
        "long request": times[1] / 1e6,
        "long : short": times[1] / times[0],
        "request kept": kept / 1e6,
    }


def _time_pieces(agent: Agent, client: Client, handle: int, count: int) -> int:
    data = write_request(handle, count // 4 * 3)
    before = agent.cpu_time()
    client.send_in_pieces(data, 4 * KIB)
    client.receive()
    return agent.cpu_time() - before


def crowd_of_children(stage: Stage) -> Figures:
    """All run at once, each with captured output."""
    argv = ["-c", "sleep 1; echo $0"]
    with stage.agent.connect() as client:
        begin = time.perf_counter()
        pids = [
            client.call("guest-exec", path="/bin/sh", arg=argv, capture_output=True)["pid"]
            for _ in range(stage.size.crowd_of_children)
        ]
        statuses = [_final_status(client, pid) for pid in pids]
        seconds = time.perf_counter() - begin
    failed = sum(
        status.get("exitcode") != 0 or status.get("out-data") != "L2Jpbi9zaAo="
        for status in statuses
    )
    return {"children failed": failed, "children": seconds - 1}


def _final_status(client: Client, pid: int) -> dict[str, object]:
    look = request("guest-exec-status", pid=pid)
    while b'"exited": true' not in (reply := client.exchange(look)):
        time.sleep(0.001)
    status: dict[str, object] = json.loads(reply)["return"]
    return status


def crowd_of_clients(stage: Stage) -> Figures:
    """Pings per second of many clients together, and the ratio to a single client."""
    count = max(1, stage.size.pings // stage.size.crowd_of_clients)
    clients = [stage.agent.connect() for _ in range(stage.size.crowd_of_clients)]
    try:
        for client in clients:  # all have been let in
            client.exchange(PING)
        alone = count * 1e9 / sum(clients[0].time_exchanges(PING, count))
        begin = time.perf_counter()
        for _ in range(count):
            for client in clients:
                client.send(PING)
            for client in clients:
                client.receive()
        together = count * len(clients) / (time.perf_counter() - begin)
    finally:
        for client in clients:
            client.close()
    return {"clients": together, "clients : client": together / alone}


def memory_growth(stage: Stage) -> Figures:
    """Over mixed requests, valid and invalid, after a tenth of them to warm up."""
    count = stage.size.mixed_requests
    with stage.fresh_agent() as agent, agent.connect() as client:
        path = str(agent.folder / "mixed")
        handle = client.call("guest-file-open", path=path, mode="w+")
        begin = time.perf_counter()
        _send_mixed_requests(client, handle, count // 10)
        before = agent.memory("VmRSS")
        _send_mixed_requests(client, handle, count)
        seconds = time.perf_counter() - begin
        growth = agent.memory("VmRSS") - before
    return {"growth": growth / 1e3, "mixed": count * 1.1 / seconds}


def _send_mixed_requests(client: Client, handle: int, count: int) -> None:
    batch = _mixed_requests(handle)
    per_batch = batch.count(b"\n")
    for number in range(-(-count // per_batch)):
        client.pipeline(batch.replace(b"@number", b"%d" % number), per_batch)
        if number % 100 == 0:
            _time_child(client)


def _mixed_requests(handle: int) -> bytes:
    """One request per line, each with one line of reply. `@number` stands for a number.

    The sync comes first: after a slow command it would mean that the client has given up on that
    command.
    """
    good = [
        request("guest-sync", id="@number").replace(b'"@number"', b"@number"),
        request("guest-get-time"),
        request("guest-get-host-name"),
        request("guest-get-osinfo"),
        request("guest-info"),
        request("guest-file-seek", handle=handle, offset=0, whence="set"),
        request("guest-file-write", handle=handle, buf_b64="bWl4ZWQ=" * 64),
        request("guest-file-seek", handle=handle, offset=0, whence="set"),
        request("guest-file-read", handle=handle, count=4096),
        request("guest-file-flush", handle=handle),
        b'{"execute": "guest-ping", "id": {"number": [@number, "\\u00e9"]}}\n',
    ]
    bad = [
        b'{"execute": "guest-no-@number"}\n',
        b'{"execute": "guest-ping", "arguments": {"a@number": 1}}\n',
        request("guest-file-read", handle=1),
        b'{"execute": "guest-exec-status", "arguments": {"pid": "@number"}}\n',
        b'{"execute": @number, "id": "a"}\n',
    ]
    pings = [PING] * 16
    return b"".join(good + bad + pings)
