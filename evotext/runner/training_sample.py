"""A few training episodes with what they counted for: what the policy says while it learns, and what it is told of it."""

import math

from evotext.run_folder.schema import TrainingEpisode
from evotext.runner.readable import readable
from evotext.types import Credit, Trajectories


def training_sample(batch: Trajectories, credit: Credit | None, *, generation: int) -> list[TrainingEpisode]:
    """Return the batch's episodes that are kept as text. generation: how many have finished with this one."""
    plan, episodes = batch.plan, []
    for transcript in batch.transcripts:
        value = None if credit is None else float(credit.value_B[transcript.row])
        counted = {} if credit is None or value is None or not math.isfinite(value) else {credit.name: value}
        episodes.append(
            TrainingEpisode(
                generation=generation,
                instance=transcript.instance,
                group=plan.groups[transcript.row],
                member=None if plan.members is None else plan.members[transcript.row],
                episode_return=transcript.episode_return,
                reward_parts=dict(transcript.reward_parts),
                advantage=counted.get("advantage"),
                fitness=counted.get("fitness"),
                text=readable(transcript) + "".join(f", {name} {value:.4g}" for name, value in counted.items()),
            )
        )
    return episodes
