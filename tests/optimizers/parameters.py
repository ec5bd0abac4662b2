"""A stand-in for a network where only the parameters matter."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch

from evotext.noise import MemberNoise, ParameterSpec


class Parameters:
    """A `PerturbableNetwork` with parameters of these shapes and no layers."""

    def __init__(self, dtype: torch.dtype = torch.float64, **shapes: tuple[int, ...]) -> None:
        self.parameters: Mapping[str, ParameterSpec] = {
            name: ParameterSpec(
                kind="vector" if len(shape) == 1 else "matrix",
                shape=shape,
                index=index,
                dtype=dtype,
                device=torch.device("cpu"),
            )
            for index, (name, shape) in enumerate(sorted(shapes.items()))
        }

    together: Sequence[tuple[str, ...]] = ()

    def active(self, noise: MemberNoise, rows_per_member: int) -> AbstractContextManager[None]:
        raise NotImplementedError
