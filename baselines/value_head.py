"""A value head: what is to come after a state, read off the language model's last hidden state."""

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """One linear layer in float32, starting at zero, so that the first values say nothing instead of something wrong.

    The state is divided by its size: a step of Adam at a rate r then moves the value by about r in a model of any width
    (the readout of Yang et al. 2022, arXiv 2203.03466), where it would move it by r times the width.

    detach: whether the value loss stops here instead of also changing the language model.
    """

    def __init__(self, hidden_size: int, *, detach: bool, device: torch.device) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, device=device, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.detach = detach

    def forward(self, hidden_BND: Tensor) -> Tensor:
        """Return values (B, N) in float32."""
        hidden = hidden_BND.detach() if self.detach else hidden_BND
        return self.linear(hidden.to(self.linear.weight.dtype) / hidden.shape[-1])[..., 0]
