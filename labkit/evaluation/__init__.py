"""Evaluation: scores of a labeling against true classes, and the baselines that every method is measured against."""
