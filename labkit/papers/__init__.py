"""The two papers at full size: published numbers, and the commands that redo them."""
