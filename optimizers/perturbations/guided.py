"""Guided noise: low-rank noise within the span of what a layer reads.

Idea: AGZO (activation-guided zeroth-order optimisation), arXiv 2601.17261. The gradient of a linear layer is a sum of outer
products with its inputs, G = sum_t y'_t x_t^T, so that no direction outside of their span has any of it. With V (I, k) the k
strongest directions of the layer's inputs, and A (O, r) and Z (k, r) standard normal,

    matrix      E = (A Z^T / sqrt(r)) V^T,  E[g] = G V V^T
    embedding   reads one-hot vectors: V selects the k tokens that were read most; the rows of all others stay
    vector      as with low-rank noise: of full size, or frozen

    N MSE / |G V|^2 = O k + 1 + (2 O + 2 k + 2) / r: that of low-rank noise with k inputs in place of I.

Deviation from the paper: the directions are kept for some generations instead of drawn anew for every step.

Shapes: P members, K positions a member, O outputs, I inputs (an embedding is O = V by I = D), k directions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evotext.protocols import MemberNoise, ParameterSpec, PerturbableNetwork


@dataclass(frozen=True, kw_only=True)
class Basis:
    """The directions of each matrix. A matrix without any is not perturbed."""

    inputs: Mapping[str, Tensor]
    """V (I, k) of each linear layer's matrix, with orthonormal columns, in the weights' dtype."""
    tokens: Mapping[str, Tensor]
    """The chosen rows (k,) of each embedding, ascending."""

    def reduced(self, name: str, spec: ParameterSpec) -> ParameterSpec:
        """The parameter in its small space: (O, k) of a linear layer, (k, D) of an embedding."""
        if name in self.tokens:
            return replace(spec, shape=(len(self.tokens[name]), spec.shape[1]))
        if name in self.inputs:
            return replace(spec, shape=(spec.shape[0], self.inputs[name].shape[1]))
        return spec

    def lift(self, name: str, small: Tensor, spec: ParameterSpec) -> Tensor:
        """The parameter's own layout, from its small space."""
        if name in self.tokens:
            return small.new_zeros(spec.shape).index_copy_(0, self.tokens[name], small)
        return small @ self.inputs[name].to(small.dtype).T if name in self.inputs else small
