"""Products of rows with one of many matrices each, as a mixture of experts needs.

Shapes: S rows, G matrices, I inputs, O outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_product(x_SI: Tensor, matrix_GIO: Tensor, group_S: Tensor) -> Tensor:
    """Return (S, O): each row times the matrix of its group. Rows come in any order; group_S holds integers from 0 to G - 1."""
    order_S = group_S.argsort(stable=True)
    sorted_SI = x_SI[order_S]
    every_G = torch.arange(matrix_GIO.shape[0], device=group_S.device)
    end_G = torch.searchsorted(group_S[order_S], every_G, right=True)
    y_SO = x_SI.new_empty(x_SI.shape[0], matrix_GIO.shape[2])
    if _has_kernel(x_SI, matrix_GIO):
        y_SO[order_S] = F.grouped_mm(sorted_SI, matrix_GIO, offs=end_G.int())
        return y_SO
    begin = 0
    for group, end in enumerate(end_G.tolist()):
        if begin < end:
            y_SO[order_S[begin:end]] = sorted_SI[begin:end] @ matrix_GIO[group]
        begin = end
    return y_SO


def _has_kernel(x_SI: Tensor, matrix_GIO: Tensor) -> bool:
    """Return whether torch multiplies all groups at once: on a GPU, in bfloat16, rows being a multiple of 16 bytes long."""
    fits = matrix_GIO.shape[1] % 8 == 0 and matrix_GIO.shape[2] % 8 == 0
    return x_SI.is_cuda and fits and x_SI.dtype == matrix_GIO.dtype == torch.bfloat16
