"""Zero-shot: prompts, the classifier that they make, and names for clusters."""
