"""Data: what a manifest may say, where images lie, how they are decoded, and the datasets they make."""
