"""Gradient-based baselines: GRPO, PPO and supervised fine-tuning, with the parts that they share."""

from baselines.grpo import GRPO
from baselines.ppo import PPO
from baselines.sft import SFT

__all__ = ["GRPO", "PPO", "SFT"]
