"""Policy-gradient baselines: GRPO and PPO, with the advantages, losses and forward pass that they share."""

from baselines.grpo import GRPO
from baselines.ppo import PPO

__all__ = ["GRPO", "PPO"]
