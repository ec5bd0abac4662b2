"""The policy's own view of episodes: its tokens, their log-probabilities, and what each was worth."""
