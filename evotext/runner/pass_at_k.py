"""pass@k: how often at least one of k sampled answers succeeds (Chen et al. 2021, arXiv 2107.03374, equation 1).

With n answers to an instance of which c succeed, 1 - C(n - c, k) / C(n, k) is the share of the sets of k answers with a
success among them, an unbiased estimate for k up to n. The plain 1 - (1 - c/n)^k is biased. pass@1 is c / n: what others
call mean@n or avg@n.
"""

import math
from collections.abc import Sequence


def pass_at_k(successes: Sequence[int], samples: int) -> dict[int, float]:
    """Return the mean over instances for k = 1, 2, 4, ... up to `samples`. successes: of each instance, out of `samples`."""
    ks = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    return {k: math.fsum(_of_instance(c, samples, k) for c in successes) / len(successes) for k in ks}


def _of_instance(successes: int, samples: int, k: int) -> float:
    return 1.0 - math.comb(samples - successes, k) / math.comb(samples, k)
