"""Checks that nodes may come and go: trains under torchrun's elastic mode, kills and adds nodes at random, compares bits.

    python scripts/soak_elastic.py out=runs/elastic kills=20 env=sort model=tiny budget=updates budget.limit=400 rows=64

out=DIR      gets alone/, a run of one process that nothing happens to, elastic/, and elastic.json
kills=20     nodes and worker processes to be killed; as many nodes are added as are wanted for that
most=3       nodes at a time
seed=0       of what happens and when

A node is torchrun's agent with one worker, in a session of its own, on this machine. Every other word goes to train.py. Exit
status 1 if weights or records of the two runs differ, or if the run ends before everything has happened.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from evotext.cli import settings
from evotext.cli.main import exit_with
from evotext.validation import NonNegativeInt, PositiveInt

TRAIN = Path(__file__).resolve().parent / "train.py"
# A lost node is noticed within seconds, and nobody waits long for more to come.
RENDEZVOUS = "is_host=0,last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"
PATIENCE = 600.0
# Keys of a record that speak of time, machines and who sampled.
TIMED = ("seconds", "processes/", "flops")


class Settings(settings.Settings):
    """The settings of the check."""

    out: Path
    kills: PositiveInt = 20
    most: PositiveInt = 3
    seed: NonNegativeInt = 0


class Nodes:
    """Nodes of one elastic job on this machine; the rendezvous' store lives as long as this object."""

    def __init__(self, words: list[str], folder: Path, said: Path) -> None:
        self._store = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), wait_for_workers=False)
        self._words, self.folder, self._said = words, folder, said
        self._running: list[subprocess.Popen[bytes]] = []

    def add(self) -> None:
        """Start a node, which joins the others."""
        endpoint = f"127.0.0.1:{self._store.port}"
        elastic = ["--nnodes=1:8", "--nproc-per-node=1", "--max-restarts=1000", "--rdzv-backend=c10d", "--rdzv-id=soak"]
        command = [sys.executable, "-m", "torch.distributed.run", *elastic, f"--rdzv-endpoint={endpoint}"]
        command += [f"--rdzv-conf={RENDEZVOUS}", "--monitor-interval=0.2", "--local-addr=127.0.0.1", str(TRAIN)]
        with self._said.open("ab") as said:
            node = subprocess.Popen(  # noqa: S603 (our own script)
                [*command, *self._words, f"hydra.run.dir={self.folder}"],
                env=os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._running.append(node)

    @property
    def running(self) -> int:
        """The number of nodes."""
        self._running = [node for node in self._running if node.poll() is None]
        return len(self._running)

    def kill(self, which: int, *, worker_only: bool = False) -> None:
        """Kill a node with all its processes as a power cut would, or its worker alone."""
        node = psutil.Process(self._running[which].pid)
        workers = node.children(recursive=True)
        for process in workers if worker_only else [node, *workers]:
            process.kill()
        if not worker_only:
            self._running.pop(which).wait()

    def lines(self) -> int:
        """Return how many records the run has written."""
        metrics = self.folder / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def completed(self) -> bool:
        """Return whether the run has come to its end."""
        summary = self.folder / "summary.json"
        return summary.exists() and json.loads(summary.read_text())["status"] == "completed"

    def wait(self, until: Callable[[], bool]) -> None:
        """Return when it is so. Raise TimeoutError, or RuntimeError if no node is left."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing happened for {PATIENCE:.0f} s; {self._said} says more")
            if not self.running:
                raise RuntimeError(f"no node is left; {self._said} says why")
            time.sleep(0.05)

    def end(self) -> None:
        """Wait for nodes to leave a run that is completed; end those that came too late."""
        deadline = time.monotonic() + 30
        while self.running and time.monotonic() < deadline:
            time.sleep(0.1)
        while self.running:
            self.kill(0)


def outcome(folder: Path) -> dict[str, Any]:
    """Return what a run has to have in common with one that nothing happened to."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "records": [{k: v for k, v in line.items() if not any(word in k for word in TIMED)} for line in lines],
    }


def disturb(nodes: Nodes, kills: int, most: int, chance: random.Random) -> dict[str, int]:
    """Kill and add until so many were killed or the run is over; return how often each happened."""
    counts = {"nodes killed": 0, "workers killed": 0, "nodes added": 0, "while starting": 0}
    while counts["nodes killed"] + counts["workers killed"] < kills and not nodes.completed():
        victim, worker_only = chance.randrange(nodes.running), chance.random() < 0.4
        if nodes.running < most and (nodes.running == 1 or chance.random() < 0.5):
            nodes.add()
            counts["nodes added"] += 1
        nodes.kill(victim, worker_only=worker_only)
        counts["workers killed" if worker_only else "nodes killed"] += 1
        if chance.random() < 0.3:  # let the next thing happen while processes start
            time.sleep(chance.uniform(0, 5))
            counts["while starting"] += 1
            continue
        seen = nodes.lines()
        nodes.wait(lambda seen=seen: nodes.completed() or nodes.lines() > seen + 1)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 1))
    return counts


def main(words: list[str]) -> int:
    """Run both; return the exit status. Raise ConfigError for what the user should change."""
    told, passed_on = settings.read(words, Settings, description=__doc__)
    out = told.out.resolve()
    out.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    alone = subprocess.run([sys.executable, str(TRAIN), *passed_on, f"hydra.run.dir={out / 'alone'}"])  # noqa: S603
    if alone.returncode:
        return alone.returncode
    nodes, begin = Nodes(passed_on, out / "elastic", out / "said"), time.monotonic()
    try:
        nodes.add()
        nodes.wait(lambda: nodes.lines() > 1)
        counts = disturb(nodes, told.kills, told.most, random.Random(told.seed))  # noqa: S311
        early = nodes.completed()
        nodes.wait(nodes.completed)
    finally:
        nodes.end()
    same = outcome(out / "alone") == outcome(out / "elastic")
    summary = json.loads((out / "elastic" / "summary.json").read_text())
    figures = counts | {
        "seconds": round(time.monotonic() - begin),
        "generations": len([r for r in outcome(out / "elastic")["records"] if r["kind"] == "train"]),
        "resumes": summary["resumes"],
        "same bits": same,
        "ended early": early,
    }
    (out / "elastic.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return 0 if same and not early else 1


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))
