"""Stand-ins: a miniature of each dataset of the papers, in its true layout, for tests and runs offline."""

from labkit.papers.standins.writing import write_stand_ins

__all__ = ["write_stand_ins"]
