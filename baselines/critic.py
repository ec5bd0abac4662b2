"""The values of states: a linear head on the policy's trunk, or on a copy of that trunk which learns nothing else.

The head's output is in units of the returns' scale: V = mean + spread x head (baselines/return_scale.py).

A trunk of its own keeps the value loss off the policy and lets the value go its own way, at the price of a second trunk:
its weights, gradients and optimizer state in memory, and passes of its own in every epoch.

Shapes: B rows, N actions, D hidden size.
"""

from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

from evotext.distributed.sharding import gathered
from evotext.models.flops import ForwardFlops
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import Actions
from evotext.types import Cost

from .gradient_checkpointing import checkpointed_layers
from .policy import Scorer, Scores, cost_of_pass, states_at_actions
from .return_scale import ReturnScale
from .shared_opening import shared_openings
from .value_head import ValueHead

Trunk = Literal["shared", "own"]


class Critic:
    """trunk: the policy's (shared), or a copy of it as it is now (own). detach: the value loss stops at the head.

    policy: how the policy is scored; a trunk of its own is run likewise. memory: of the returns' scale.
    Raises ValueError for a trunk of its own whose states are not those that the network's logits are made of.
    """

    def __init__(self, model: LanguageModel, policy: Scorer, *, trunk: Trunk, detach: bool, memory: float) -> None:
        if trunk == "own" and not policy.by_head:
            raise ValueError(
                f"value_trunk: expected shared for {type(model.network).__name__}, whose logits are not its "
                "output head applied to its trunk's last hidden states, got own"
            )
        size = model.network.config.get_text_config().hidden_size
        self.head = ValueHead(size, detach=detach, device=model.device)
        self.scale = ReturnScale(memory)
        self._checkpoints, self._shares, self._spent = policy.checkpoints, policy.shares, Cost()
        self.trunk: PreTrainedModel | None = None
        if trunk == "own":
            self.trunk = model.copied(trunk=True)
            self._flops = ForwardFlops(self.trunk)

    @property
    def trunk_parameters(self) -> list[nn.Parameter]:
        """The trained parameters of a trunk of its own; none of a shared one."""
        return [] if self.trunk is None else [p for p in self.trunk.parameters() if p.requires_grad]

    def judge(self, actions: Actions, scores: Scores) -> tuple[Tensor, Tensor]:
        """Return what the head says before each action (B, N) and at the end of each conversation (B,), in float32.

        scores: the policy's of the same actions, which a trunk of its own does not read.
        """
        hidden_BND, final_BD = scores.hidden_BND, scores.final_hidden_BD
        if self.trunk is not None:
            openings = shared_openings(actions) if self._shares else None
            positions = actions.tokens_BT.numel() if openings is None else openings.positions
            self._spent += cost_of_pass(self._flops, positions, 0)
            with gathered(self.trunk), checkpointed_layers(self.trunk, self._checkpoints):
                hidden_BND, _, final_BD = states_at_actions(self.trunk, actions, openings)
        return self.head(hidden_BND), self.head(final_BD)

    def spent(self) -> Cost:
        """Return the cost of a trunk of its own since the last call."""
        spent, self._spent = self._spent, Cost()
        return spent

    def state_dict(self) -> dict[str, object]:
        """Return the head's weights, those of a trunk of its own and the returns' scale."""
        return {
            "head": self.head.state_dict(),
            "trunk": None if self.trunk is None else self.trunk.state_dict(),
            "scale": self.scale.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.head.load_state_dict(state["head"])
        if self.trunk is not None:
            self.trunk.load_state_dict(state["trunk"])
        self.scale.load_state_dict(state["scale"])
