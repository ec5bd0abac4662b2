"""Episodes of several turns, of uneven length, for tests of scored ES: made up, with returns that a test wants."""

from typing import Any

import torch

from evotext.types import Cost, Ending, RolloutPlan, Trajectories


def made_up(
    plan: RolloutPlan, *, seed: int = 0, vocabulary: int = 100, truncated: tuple[int, ...] = ()
) -> Trajectories:
    """Two turns of prompt and answer a row, of random tokens and lengths; the rows are padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(plan.instances)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    tokens, masks, turns = [], [], []
    for _ in range(rows):
        lengths = [draw(2, 5), draw(1, 4), draw(1, 4), draw(1, 5)]  # prompt, answer, reply, answer
        tokens.append(torch.randint(1, vocabulary, (sum(lengths),), generator=generator))
        masks.append(torch.tensor([part % 2 == 1 for part, length in enumerate(lengths) for _ in range(length)]))
        turns.append(torch.tensor([part // 2 for part, length in enumerate(lengths) for _ in range(length)]))

    def padded(parts: list[torch.Tensor], fill: Any) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill)

    tokens_BT = padded(tokens, 7)  # a token like any other: it must never be read
    no_B = torch.zeros(rows, dtype=torch.bool)
    cut_B = no_B.clone()
    cut_B[list(truncated)] = True
    return_B = torch.randint(0, 3, (rows,), generator=generator).double()
    return Trajectories(
        plan=plan,
        tokens_BT=tokens_BT,
        length_B=torch.tensor([len(row) for row in tokens]),
        policy_mask_BT=padded(masks, False),
        turn_BT=padded(turns, -1),
        reward_BT=torch.zeros(tokens_BT.shape),
        return_B=return_B,
        success_B=no_B,
        ending_B=torch.where(cut_B, Ending.TURN_LIMIT, Ending.TASK),
        has_tokens_B=~no_B,
        overlong_B=no_B,
        cost=Cost(),
        transcripts=(),
        logprob_BT=torch.zeros(tokens_BT.shape),
    )
