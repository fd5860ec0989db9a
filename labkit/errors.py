"""The errors that labkit raises: each says what was given, what was expected and what to do."""

from __future__ import annotations


class LabkitError(Exception):
    """Base class of every error that labkit raises on purpose."""


class ManifestError(LabkitError, ValueError):
    """A data manifest is missing, malformed or contradicts itself."""


class DataError(LabkitError, ValueError):
    """A dataset, an image or a feature file is missing, damaged or of the wrong shape."""


class BackboneError(LabkitError, ValueError):
    """A backbone is unknown, or its weights are neither on this machine nor reachable."""


class FitError(LabkitError, ValueError):
    """The input or the settings of an estimator cannot be fitted."""


class CheckpointError(LabkitError, ValueError):
    """A saved model cannot be read back."""


class CollapseWarning(UserWarning):
    """Every restart left at least one of the requested clusters empty."""
