"""`tracker=mlflow`: metrics and sample episodes to an MLflow server, or into a local database."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evotext.cli.messages import without_secrets
from evotext.library import optional
from evotext.run_folder.configuration import hyperparameters
from evotext.run_folder.ending import ended_well
from evotext.run_folder.names import MLFLOW_ID
from evotext.run_folder.schema import TrainingEpisode
from evotext.trackers.names import shared_names
from evotext.validation import checked


class MLflow:
    """Opens the tracker of a run. Raises ImportError without the package mlflow (mlflow-skinny is enough).

    tracking_uri: None takes MLFLOW_TRACKING_URI from the environment, else MLflow's own default.
    """

    @checked
    def __init__(self, *, experiment: str, tracking_uri: str | None) -> None:
        self._mlflow = optional("mlflow", "mlflow")
        self._experiment, self._tracking_uri = experiment, tracking_uri

    def __call__(self, folder: Path) -> "MLflowRun":
        """Return the tracker of the run in this folder. Raise ValueError if the server or database does not answer."""
        file = folder / MLFLOW_ID
        try:
            client = self._mlflow.MlflowClient(tracking_uri=self._tracking_uri)
            if file.exists():
                run_id = file.read_text(encoding="utf-8")
                client.update_run(run_id, status="RUNNING")
            else:
                run_id = client.create_run(self._experiment_id(client), run_name=folder.name).info.run_id
                file.write_text(run_id, encoding="utf-8")
                for key, value in hyperparameters(folder).items():
                    client.log_param(run_id, key, value)
        except self._mlflow.exceptions.MlflowException as error:
            where = self._tracking_uri or self._mlflow.get_tracking_uri()
            raise ValueError(without_secrets(f"tracking_uri: expected MLflow at {where}, got {error}")) from error
        return MLflowRun(client, run_id, mlflow=self._mlflow, folder=folder)

    def _experiment_id(self, client: Any) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found:
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(self._experiment))
        except self._mlflow.exceptions.MlflowException:  # another job of the sweep was first
            found = client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)


class MLflowRun:
    """Every finite metric over generations; the episodes of a measurement as a text file.

    If the server is lost the run goes on without it, and says so once: metrics.jsonl has everything.
    """

    def __init__(self, client: Any, run_id: str, *, mlflow: Any, folder: Path) -> None:
        self._client, self._run_id, self._mlflow, self._folder = client, run_id, mlflow, folder
        self._lost = False

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Log the record's metrics at its generation, with the spending so far to draw them against."""
        now, step = int(time.time() * 1000), int(record["generation"])
        points = [
            self._mlflow.entities.Metric(name.replace("@", "_at_"), value, now, step)  # names take no @
            for name, value in shared_names(record).items()
            if math.isfinite(value)
        ]
        self._send(lambda: self._client.log_batch(self._run_id, metrics=points))

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Log the episodes as text."""
        text = "\n\n".join(texts)
        self._send(lambda: self._client.log_text(self._run_id, text, f"episodes/{generation:06d}.txt"))

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Store the episodes with their returns and credit as a text file."""
        if episodes:
            text = "\n\n".join(episode.text for episode in episodes)
            file = f"train_episodes/{episodes[0].generation:06d}.txt"
            self._send(lambda: self._client.log_text(self._run_id, text, file))

    def close(self) -> None:
        """Say how it ended."""
        status = "FINISHED" if ended_well(self._folder) else "FAILED"
        self._send(lambda: self._client.set_terminated(self._run_id, status=status))

    def _send(self, call: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            call()
        except self._mlflow.exceptions.MlflowException as error:
            self._lost = True
            reason = without_secrets(str(error))
            print(f"note: MLflow is lost, the run goes on without it: {reason}", file=sys.stderr)
