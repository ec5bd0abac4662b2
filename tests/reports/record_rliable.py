"""Records what rliable says of fixed scores, for `test_statistics.py`.

rliable does not import beside pandas 3, so it lives in an environment of its own. Its intervals have no seed and differ
a little each time. RLIABLE_PYTHON=/tmp/rliable/bin/python lets the tests ask it afresh.

    python -m venv /tmp/rliable && /tmp/rliable/bin/pip install rliable==1.2.0 "pandas<3"
    /tmp/rliable/bin/python tests/reports/record_rliable.py > tests/reports/rliable_values.json
"""

import json
from importlib.metadata import version

import numpy as np
from rliable import library, metrics

TASKS = {"easy": 0.8, "middling": 0.55, "hard": 0.3}
RUNS, RESAMPLES = 5, 50_000


def draw(rng, shift):
    """Five scores a task, as shares of success."""
    return {
        task: [round(float(score), 4) for score in np.clip(rng.normal(mean + shift, 0.12, RUNS), 0, 1)]
        for task, mean in TASKS.items()
    }


def matrix(scores):
    """Runs by tasks, as rliable wants them."""
    return np.stack(list(scores.values()), axis=1)


def interval(function, scores):
    """The point and its interval, by name."""
    points, intervals = library.get_interval_estimates(scores, function, reps=RESAMPLES)
    return {name: [float(points[name][0]), *map(float, intervals[name][:, 0])] for name in scores}


def main():
    """Print everything as JSON."""
    rng = np.random.default_rng(0)
    x, y = draw(rng, 0.05), draw(rng, 0.0)
    thresholds = np.linspace(0, 1, 11)
    profile, profile_interval = library.create_performance_profile({"x": matrix(x)}, thresholds, reps=RESAMPLES)
    print(
        json.dumps(
            {
                "rliable": version("rliable"),
                "x": x,
                "y": y,
                "interquartile_mean": interval(
                    lambda scores: np.array([metrics.aggregate_iqm(scores)]), {"x": matrix(x), "y": matrix(y)}
                ),
                "probability_of_improvement": interval(
                    lambda a, b: np.array([metrics.probability_of_improvement(a, b)]), {"x,y": (matrix(x), matrix(y))}
                ),
                "thresholds": thresholds.tolist(),
                "profile": [profile["x"].tolist(), *profile_interval["x"].tolist()],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
