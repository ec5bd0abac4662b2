"""Gradient-based baselines: GRPO, PPO and supervised fine-tuning, with the parts that they share."""

from .grpo import GRPO
from .ppo import PPO
from .sft import SFT

__all__ = ["GRPO", "PPO", "SFT"]
