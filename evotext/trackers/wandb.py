"""`tracker=wandb`: metrics and sample episodes to Weights & Biases, or into files for it where there is no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from evotext.library import optional
from evotext.run_folder.configuration import hyperparameters
from evotext.run_folder.ending import ended_well
from evotext.run_folder.names import WANDB_ID
from evotext.run_folder.schema import TrainingEpisode
from evotext.trackers.names import shared_names
from evotext.validation import checked


class WandB:
    """Opens the tracker of a run. Raises ImportError without the package wandb.

    group: the group of the runs of a sweep; None: the name of the folder above the run's.
    mode: None takes WANDB_MODE from the environment, online otherwise.
    """

    @checked
    def __init__(
        self,
        *,
        project: str,
        entity: str | None,
        group: str | None,
        mode: Literal["online", "offline", "disabled"] | None,
    ) -> None:
        self._wandb = optional("wandb", "wandb")
        self._where = {"project": project, "entity": entity, "mode": mode}
        self._group = group

    def __call__(self, folder: Path) -> "WandBRun":
        """Return the tracker of the run in this folder. Raise ValueError if it cannot be opened, as without a login."""
        file = folder / WANDB_ID
        known = file.read_text(encoding="utf-8") if file.exists() else None
        try:
            run = self._wandb.init(
                **self._where,
                id=known,
                resume="allow" if known else None,
                name=folder.name,
                group=self._group or folder.resolve().parent.name,
                dir=str(folder),
                config=hyperparameters(folder),
                reinit="create_new",  # a run of this process that ended badly is another one
                settings=self._wandb.Settings(console="off", quiet=True, silent=True),
            )
        except self._wandb.Error as error:
            raise ValueError(
                f"tracker: expected a login to Weights & Biases, got {error}; run `wandb login` or add tracker.mode=offline"
            ) from error
        file.write_text(run.id, encoding="utf-8")
        return WandBRun(run, table=self._wandb.Table, folder=folder)


class WandBRun:
    """Every metric over generations; the episodes of a measurement as a table.

    Generations that an earlier process has logged already, which a resumed run goes through again, stay as they were.
    """

    def __init__(self, run: Any, *, table: Any, folder: Path) -> None:
        self._run, self._table, self._folder = run, table, folder

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Log the record's metrics at its generation, with the spending so far to draw them against."""
        self._run.log(shared_names(record), step=int(record["generation"]))

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Log one row an episode."""
        table = self._table(columns=["episode"], data=[[text] for text in texts])
        self._run.log({"episodes": table}, step=generation)

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Log a table with a row an episode: its return, credit and text."""
        if episodes:
            columns = ["member", "instance", "episode_return", "advantage", "fitness", "text"]
            table = self._table(columns=columns, data=[[getattr(e, name) for name in columns] for e in episodes])
            self._run.log({"train/episodes": table}, step=episodes[0].generation)

    def close(self) -> None:
        """Say how it ended and wait until everything is sent or written."""
        self._run.finish(exit_code=0 if ended_well(self._folder) else 1)
