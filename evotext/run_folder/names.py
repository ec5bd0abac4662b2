"""The names of the files in a run's folder."""

HYDRA = ".hydra"
"""Hydra's record of the start: the three YAML files below."""
CONFIG, OVERRIDES, HYDRA_CONFIG = "config.yaml", "overrides.yaml", "hydra.yaml"

OBJECTS = "objects.yaml"
"""There too, of a run that `evotext.tune` was given objects for: which keys they took the place of."""

SUMMARY = "summary.json"
METRICS = "metrics.jsonl"
EPISODES = "episodes.jsonl"
"""A few sample episodes as text: one line a measurement, and one an episode of training."""
ERROR = "error.txt"
"""The traceback of a run that failed, or the line about one that never began."""
FAULTS = "faults"
"""The first traceback of each kind of fault of the environment, in a file of its name."""

CHECKPOINTS = "checkpoints"
MODEL = "model"
TENSORBOARD = "tensorboard"
EVALUATION = "evaluation.json"
"""The results of `evotext evaluate`."""

LOCK = "run.lock"
WANDB_ID, MLFLOW_ID = "wandb_id.txt", "mlflow_id.txt"
"""A tracker's id of the run, for one that is resumed."""
WORDS, LOG = "words.json", "log.txt"
"""Files of a head-to-head's job: the words that it was completed with, and its output."""

MARKS = (SUMMARY, METRICS, HYDRA)
"""Any of these makes a folder a run's."""
