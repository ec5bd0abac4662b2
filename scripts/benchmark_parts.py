"""Measure several models in parts that fit a short lease of a machine, and go on where it stopped.

    python scripts/benchmark_parts.py --out docs/results/benchmarks/gpu --minutes 9 --models 0.5B 1.5B 8B

Each part is one call of `scripts/benchmark.py`, whose figures are in a file of their own as soon as they are measured. A part
whose file is there is not measured again; one that the time left does not hold is started by the next call. Nothing is
installed and nothing is downloaded. Exit status: 0 when every part is done or has failed, 75 while some are left.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT = 75  # EX_TEMPFAIL: call again
TAIL = 2000  # characters of a failed part's output that are kept
# A part is not started with less time than this: loading a large model alone takes most of it.
LEAST_SECONDS = 45.0
# Without these two keys EGGROLL keeps float32 masters and Adam's two numbers, 96 GB for 8 billion weights.
LARGE = ("8B",)
NO_MASTERS = ("eggroll.narrow_weights=stochastic", "eggroll.optimizer._target_=torch.optim.SGD")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One call of a command. name: of its files. words: the command."""

    name: str
    words: tuple[str, ...]

    def figures(self, out: Path) -> Path:
        """Return the file of its figures once it is done."""
        return out / f"{self.name}.json"

    def log(self, out: Path) -> Path:
        """Return the file with the end of its output if it failed."""
        return out / f"{self.name}.failed.txt"


def parts(out: Path, models: list[str], words: list[str]) -> Iterator[Part]:
    """Return every part, the shortest proof first: the tests of a GPU, then each figure over all models, then memory."""
    gpu_tests = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--override-ini=filterwarnings=default")
    report = f"--junit-xml={out / 'gpu-tests.xml'}"
    yield Part(name="gpu-tests", words=(sys.executable, *gpu_tests, report, str(ROOT / "tests")))
    settings = [
        ("generation", "generation", ()),
        ("generation-1024", "generation", ("members=1024", "prompts=1")),
        ("population", "population", ()),
        ("update", "update", ()),
        ("memory", "memory", ()),
    ]
    for label, suite, further in settings:
        for model in models:
            part = Part(name=f"{model}-{label}", words=())
            large = NO_MASTERS if model in LARGE else ()
            command = (sys.executable, str(ROOT / "scripts" / "benchmark.py"), f"suite={suite}", f"model.size={model}")
            yield Part(name=part.name, words=(*command, f"out={part.figures(out)}", *large, *further, *words))


def run(part: Part, out: Path, seconds: float, *, whole: bool) -> bool:
    """Run one part; whether it is settled: done, or failed. One that ran out of a time that others had used is not.

    whole: it had the call's whole time, so that another call would not give it more.
    """
    print(f"{part.name}: {' '.join(part.words)}", flush=True)
    begin = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603 (our own scripts)
            part.words, cwd=ROOT, capture_output=True, text=True, timeout=seconds
        )
        output, fault = done.stdout + done.stderr, f"exit status {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        streams = [
            s.decode(errors="replace") if isinstance(s, bytes) else s or "" for s in (error.stdout, error.stderr)
        ]
        output, fault = "".join(streams), f"took more than {seconds:.0f} s"
        part.figures(out).unlink(missing_ok=True)  # a suite's figures are written one after another
        if not whole:
            print(f"{part.name}: {fault}, left for the next call", flush=True)
            return False
    if fault:
        part.log(out).write_text(f"{fault}\n{output[-TAIL:]}")
        print(f"{part.name}: failed, {fault}; the end of its output is in {part.log(out)}", flush=True)
    else:
        print(output[-TAIL:], flush=True)
        if not part.figures(out).exists():
            part.figures(out).write_text(json.dumps({"figures": [], "output": output.strip().splitlines()[-1:]}) + "\n")
        print(f"{part.name}: done in {time.monotonic() - begin:.0f} s", flush=True)
    return True


def settled(part: Part, out: Path) -> bool:
    """Return whether an earlier call has done it, or has seen it fail."""
    return part.figures(out).exists() or part.log(out).exists()


def main() -> int:
    """Run what is left of the parts until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures, a file for each part")
    parser.add_argument("--models", nargs="+", default=["0.5B", "1.5B", "8B"], help="shapes with random weights")
    parser.add_argument("--minutes", type=float, default=9.0, help="time of this call")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--again", action="store_true", help="try parts again that failed")
    parser.add_argument("words", nargs="*", help="further words for scripts/benchmark.py, for example repeats=10")
    chosen = parser.parse_args()
    end = time.monotonic() + 60.0 * chosen.minutes
    chosen.out.mkdir(parents=True, exist_ok=True)
    out = chosen.out.resolve()
    left: list[str] = []
    first = True
    for part in parts(out, chosen.models, chosen.words):
        if chosen.only not in part.name:
            continue
        if chosen.again:
            part.log(out).unlink(missing_ok=True)
        if settled(part, out):
            continue
        seconds = end - time.monotonic()
        if (not first and seconds < LEAST_SECONDS) or not run(part, out, max(1.0, seconds), whole=first):
            left.append(part.name)
        first = False
    print(f"left: {', '.join(left)}; call again" if left else "every part is settled", flush=True)
    return LEFT if left else 0


if __name__ == "__main__":
    sys.exit(main())
