"""A stand-in for a network where only the parameters matter."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

import torch

from evotext.noise import MemberNoise, ParameterSpec

KINDS: dict[int, Literal["vector", "matrix", "experts"]] = {1: "vector", 2: "matrix", 3: "experts"}


class Parameters:
    """A `PerturbableNetwork` with parameters of these shapes and no layers: three dimensions are those of experts."""

    def __init__(self, dtype: torch.dtype = torch.float64, **shapes: tuple[int, ...]) -> None:
        self.parameters: Mapping[str, ParameterSpec] = {
            name: ParameterSpec(
                kind=KINDS[len(shape)],
                shape=shape,
                index=index,
                dtype=dtype,
                device=torch.device("cpu"),
            )
            for index, (name, shape) in enumerate(sorted(shapes.items()))
        }

    def active(self, noise: MemberNoise, rows_per_member: int) -> AbstractContextManager[None]:
        raise NotImplementedError
