"""Episodes from the policy's side: its tokens, their log-probabilities and advantages."""
