"""Run folders by the package's own writer, with made-up learning curves."""

from pathlib import Path

import numpy as np
import yaml

from evotext.run_folder import names
from evotext.run_folder.cost import Axis, Cost, on_axes, totals
from evotext.run_folder.schema import BudgetRecord, EvaluationRecord, EvaluationSplit, Phase, Status, Summary
from evotext.run_folder.writer import JsonLines, write_summary

SPEED = {"eggroll": 4.0, "grpo": 9.0, "ppo": 5.0}
PER_GENERATION = {"eggroll": 1024, "grpo": 256, "ppo": 128}


def write_run(
    folder: Path,
    *,
    algorithm: str = "eggroll",
    env: str = "sort",
    seed: int = 0,
    final: float | None = None,
    status: Status = "completed",
    reason: str = "",
    limit: float = 40_960,
    decoding: str = "greedy",
    split: EvaluationSplit = "test",
    before: float = 0.2,
    samples: bool = False,
    passes: bool = False,
    phase: Phase = "reporting",
    ceiling: float = 0.9,
    success: bool = True,
    faults: dict[str, int] | None = None,
    options: dict[str, dict[str, object]] | None = None,
) -> Path:
    """A run whose held-out success rises from `before` to about `ceiling` (exactly `final`, if given), in 16 evaluations.

    success: whether the task knows one; otherwise these are returns. faults: training episodes that ended by some, by kind.
    """
    rng = np.random.default_rng([seed, *algorithm.encode(), *env.encode()])
    chosen = options or {}
    (folder / names.HYDRA).mkdir(parents=True)
    overrides = [f"algorithm={algorithm}", f"env={env}", f"seed={seed}"]
    overrides += [f"{group}.{key}={value}" for group, pairs in chosen.items() for key, value in pairs.items()]
    config = {
        "algorithm": {"_target_": f"package.{algorithm}", "rank": 1, **chosen.get("algorithm", {})},
        "env": {"name": env, **chosen.get("env", {})},
        "model": {"name": "tiny", **chosen.get("model", {})},
        "seed": seed,
        "phase": phase,
        "budget": {"unit": "episodes", "limit": limit},
    }
    (folder / names.HYDRA / names.CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / names.HYDRA / names.OVERRIDES).write_text(yaml.safe_dump(overrides))
    (folder / names.HYDRA / names.HYDRA_CONFIG).write_text(
        yaml.safe_dump({"hydra": {"runtime": {"choices": {"algorithm": algorithm, "env": env, "model": "tiny"}}}})
    )
    size = PER_GENERATION.get(algorithm, 512)
    generations = int(limit // size)
    due = sorted({round(i * generations / 16) for i in range(17)})
    highest = ceiling + 0.06 * rng.standard_normal()
    seconds_each = size / 900 * (1 + 0.1 * rng.random()) * (0.7 if algorithm == "eggroll" else 1.0)
    flops_each = size * 7 * (2e6 if algorithm == "eggroll" else 8e6)

    def spent(generation: int) -> Cost:
        return Cost(
            episodes=generation * size,
            env_steps=generation * size,
            generated_tokens=generation * size * 7,
            updates=generation,
            rollout_seconds=generation * seconds_each * 0.7,
            env_seconds=generation * seconds_each * 0.05,
            update_seconds=generation * seconds_each * 0.25,
            flops=generation * flops_each,
            backward_flops=0 if algorithm == "eggroll" else generation * size * 7 * 4e6,
        )

    lines: list[dict[str, float | int | str]] = []
    score = before
    for generation in range(generations + 1):
        axes: dict[Axis, float] = on_axes(spent(generation))
        share = generation / generations
        if generation:
            lines.append({"kind": "train", "generation": generation, **axes, "return_mean": 0.5, "success_rate": 0.5})
        if generation in due:
            learned = before + (highest - before) * (1 - np.exp(-SPEED.get(algorithm, 4.0) * share))
            noisy = learned + 0.02 * rng.standard_normal() if generation else before
            score = float(np.clip(noisy, 0, 1)) if final is None or generation < generations else final
            measured = {"eval/return": score, "eval/mean_length": 7.0} | ({"eval/success": score} if success else {})
            lines.append({"kind": "eval", "generation": generation, **axes, **measured})
    if status != "completed":
        lines = lines[: len(lines) // 2]
    tracker = JsonLines(folder)
    for line in lines:
        tracker.log(line)
    for generation, answer, reward in ((0, "321", 0), (generations, "123", 1)) if samples else ():
        tracker.log_transcripts(generation, [f"env> Sort: 3 1 2\nllm> {answer}\nreturn {reward}"] * 2)
    tracker.close()
    summary = Summary(
        algorithm=algorithm,
        env=env,
        model="tiny",
        seed=seed,
        phase=phase,
        status=status,
        reason=reason or None,
        budget=BudgetRecord(unit="episodes", limit=limit, spent=generations * size),
        eval=EvaluationRecord(
            return_before=before,
            return_after=score,
            success_before=before if success else None,
            success_after=score if success else None,
            episodes=256,
            decoding=decoding,
            split=split,
            samples=4 if passes else 0,
            pass_at_before=_passes(before) if passes else {},
            pass_at_after=_passes(score) if passes else {},
        ),
        cost=totals(spent(int(lines[-1]["generation"])), peak_memory_bytes=612_000_000),
        evaluation_cost=on_axes(
            Cost(episodes=17 * 256, generated_tokens=17 * 256 * 7, rollout_seconds=4.5, flops=6.1e10)
        ),
        faults=faults or {},
        evaluation_faults=dict.fromkeys(faults or {}, 1),
        dropped_generations=0,
        resumes=0,
        processes=1,
        versions={"python": "3.11.9", "evotext": "0.1.0", "torch": "2.13.0"},
        device="cpu, 2 threads",
    )
    write_summary(folder, summary)
    return folder


def _passes(success: float) -> dict[int, float]:
    """As if every instance were solved with this probability."""
    return {k: 1 - (1 - success) ** k for k in (1, 2, 4)}


def write_study(
    root: Path,
    *,
    envs: tuple[str, ...] = ("sort", "countdown"),
    algorithms: tuple[str, ...] = ("eggroll", "grpo"),
    seeds: int = 3,
    delays: tuple[int, ...] = (1, 4, 16),
    trials: int = 3,
) -> Path:
    """A head-to-head: several tasks, a sweep of recall's delay under which all but eggroll fall off, and a tuning."""
    for seed in range(seeds):
        for algorithm in algorithms:
            for env in envs:
                folder = root / f"{env}-{algorithm}-{seed}"
                write_run(folder, algorithm=algorithm, env=env, seed=seed, samples=True, passes=True)
            for delay in delays:
                folder = root / f"recall-{delay}-{algorithm}-{seed}"
                ceiling = 0.9 if algorithm == "eggroll" else 0.95 - 0.04 * delay
                options: dict[str, dict[str, object]] = {"env": {"delay": delay}}
                write_run(folder, algorithm=algorithm, env="recall", seed=seed, options=options, ceiling=ceiling)
    for algorithm in algorithms:
        for trial in range(trials):
            rates: dict[str, dict[str, object]] = {"algorithm": {"learning_rate": 0.01 * 3**trial}}
            folder = root / "tuning" / f"{algorithm}-{trial}"
            write_run(folder, algorithm=algorithm, env="sort", seed=1000, options=rates, phase="tuning")
    return root
