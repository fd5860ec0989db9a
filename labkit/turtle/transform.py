"""What TURTLE's solver gets for a space: centered, in directions of large variance, partly whitened, and scaled.

Not in the paper, whose features go in as they are. See notebook 04 for what it is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit._inputs import SPACES_EXPECTED
from labkit._scales import ORDINARY, block_of, power_of_two
from labkit._stored import Space
from labkit.errors import FitError

LARGEST_IN_FIT = 1e8  # Adam squares gradients that hold features twice: 1e32 of float32's 3e38
SMALLEST_IN_FIT = 1e-8  # the epsilon of Adam, beside which gradients with smaller features vanish
SMALLEST = 2.0**-1000  # deviation that can be told apart: 1e6 times the inverse is a number as well


@dataclass
class FeatureTransform:
    """What the solver gets for a space: centered, in directions of large variance, partly whitened, and scaled.

    All is computed on deviations from the mean in units near the largest of them. So neither the scale of the
    features, nor an offset that is large beside their spread, costs precision or overflows.
    """

    mean: Tensor  # (d,) float64
    factor: Tensor  # (d,) float64: one over the unit, a power of two; 0 where a feature is constant
    directions: Tensor | None  # (d, k): orthogonal columns, longer where the variance is small if it is whitened
    scale: float
    dtype: torch.dtype  # of the results: float32 or float64

    @classmethod
    def from_rows(
        cls,
        space: Space,
        rows: Tensor,
        n_components: int | None,
        whitening: float,
        feature_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> FeatureTransform:
        """The transform of a space (n, d) by some of its rows, whose numbers are (m,); settings as in `Turtle`.

        Raises:
            FitError: the rows hold NaN or infinity, or differ by less than can be computed with.
        """
        if n_components is None and feature_scale is None and not whitening:
            nothing = torch.zeros(space.shape[1], dtype=torch.float64)
            return cls(nothing, torch.ones_like(nothing), None, 1.0, dtype)
        mean, deviation = _mean_and_deviation(space, rows)
        largest = float(deviation.max())
        if 0 < largest < SMALLEST:
            raise FitError(
                f"the features differ by at most {largest:.0e}. Expected differences of at least {SMALLEST:.0e}: "
                "multiply the features by 1e300."
            )
        unit = power_of_two(largest)
        factor = (deviation > 0).double() / unit
        sample = torch.empty(len(rows), space.shape[1], dtype=dtype)
        for part, some in blocks(sample, rows, space.shape[1]):
            part.copy_(centered(space[some], mean, factor, dtype))
        directions = None
        if whitening or (n_components is not None and n_components < min(sample.shape)):
            directions = _principal_directions(sample, n_components)
            spread = (sample @ directions).square().mean(0).sqrt()
            varies = spread > 1e-5 * spread.max()
            directions = directions * torch.where(varies, spread**-whitening, 0.0)
            sample = sample @ directions
        size = float(sample.square().sum(1).mean().sqrt())
        scale = feature_scale / size if feature_scale is not None and size > 0 else 1.0
        if feature_scale is None:
            scale = unit ** (1 - whitening)  # back to the scale as it was
        return cls(mean, factor, directions, scale, dtype)

    @property
    def width(self) -> int:
        """Features of a result, k."""
        return len(self.mean) if self.directions is None else self.directions.shape[1]

    @property
    def is_identity(self) -> bool:
        return self.directions is None and self.scale == 1.0 and not self.mean.any() and bool((self.factor == 1).all())

    def __call__(self, rows: Tensor) -> Tensor:
        """Features (b, d) -> (b, k).

        Raises:
            FitError: they hold NaN or infinity.
        """
        rows = centered(rows, self.mean, self.factor, self.dtype)
        return (rows if self.directions is None else rows @ self.directions) * self.scale

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A layer (R, C, k), (R, C) on the transformed features, as the float64 layer (R, C, d), (R, C) on the given.

        In float64, since the weights for features of scale 1e30 are of scale 1e-30, and the other way round.
        """
        weight, bias = weight.double(), bias.double()
        if self.directions is not None:
            weight = weight @ self.directions.double().T
        weight = weight * (self.scale * self.factor)
        return weight, bias - weight @ self.mean


def _mean_and_deviation(space: Space, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of these rows of a space, and the largest absolute deviation from it: both (d,) float64.

    Summed are differences to the first row: a constant feature then has exactly its value as the mean.
    """
    first, blocks = space[rows[:1]][0].double(), rows.split(block_of(8 * space.shape[1]))  # small: float64, and several
    mean = first + torch.stack([(space[some].double() - first).sum(0) for some in blocks]).sum(0) / len(rows)
    return mean, torch.stack([(space[some].double() - mean).abs().amax(0) for some in blocks]).amax(0)


def centered(rows: Tensor, mean: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows − mean) · factor in a dtype, by way of float64 where float32 could overflow: (b, d), (d,), (d,) -> (b, d).

    Raises:
        FitError: a result is not finite.
    """
    ordinary = rows.dtype != torch.float64 and 1 / ORDINARY < float(factor.max()) < ORDINARY
    rows = rows.to(dtype if ordinary else torch.float64)
    if mean.any() or (factor != 1).any():
        rows = (rows - mean.to(rows.dtype)).mul_(factor.to(rows.dtype))
    rows = rows.to(dtype)
    if not all(extreme.isfinite() for extreme in rows.aminmax()):  # NaN among the rows is both
        raise FitError(f"the features hold NaN or infinity, or numbers too large to compute with. {SPACES_EXPECTED}")
    return rows


def is_as_given(space: Space, transform: FeatureTransform, n: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether n rows of a space, as the solver gets them, are the tensor that was given."""
    return (
        isinstance(space, Tensor)
        and transform.is_identity
        and (n, device, dtype) == (len(space), space.device, space.dtype)
    )


def transformed(
    space: Space, transform: FeatureTransform, rows: Tensor, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """These rows of a space as the solver gets them; the space itself where that is the same."""
    if isinstance(space, Tensor) and is_as_given(space, transform, len(rows), device, dtype):
        return _expect_fit_range(transform(space), transform, space)
    result = torch.empty(len(rows), transform.width, dtype=dtype, device=device)
    return _expect_fit_range(transform_rows(space, transform, rows, result), transform, space)


def transform_rows(space: Space, transform: FeatureTransform, rows: Tensor, result: Tensor) -> Tensor:
    """Write these rows of a space, as the solver gets them, into a result (m, k), which is returned.

    Raises:
        FitError: they hold NaN or infinity, or are too large to compute with.
    """
    for part, some in blocks(result, rows, space.shape[1]):
        part.copy_(expect_range(transform(space[some]), LARGEST_IN_FIT))
    return result


def _expect_fit_range(features: Tensor, transform: FeatureTransform, space: Space) -> Tensor:
    """Features that neither overflow nor vanish beside Adam's epsilon, though the space varies; others raise."""
    largest = max(abs(float(extreme)) for extreme in expect_range(features, LARGEST_IN_FIT).aminmax())
    if largest < SMALLEST_IN_FIT and bool(transform.factor.any()) and bool(space.any()):
        raise FitError(
            f"the features reach {largest:.0e} in the matrix products. Expected at least {SMALLEST_IN_FIT:.0e}, "
            f"since Adam takes no steps for smaller ones: multiply them, or raise feature_scale."
        )
    return features


def expect_range(features: Tensor, most: float) -> Tensor:
    """Features of which none is larger than `most`, beyond which products could overflow; others raise."""
    largest = max(abs(float(extreme)) for extreme in features.aminmax())
    if not largest <= most:
        raise FitError(
            f"the features reach {largest:.0e} in the matrix products. Expected at most {most:.0e}, since "
            f"larger ones overflow. Divide them, set feature_scale, or leave out "
            "samples that are far from all others."
        )
    return features


def _principal_directions(rows: Tensor, n_components: int | None) -> Tensor:
    """Orthonormal directions (d, k) of centered rows (m, d) in which they vary: the largest, or all.

    The eigenvectors of a covariance of rank below its size do not converge in float32; those of fewer rows than
    features are taken from the rows themselves.
    """
    m, d = rows.shape
    if n_components is not None and n_components < min(m, d):
        with torch.random.fork_rng(devices=[]):  # Halko, Martinsson and Tropp (2011): random, so always the same
            torch.default_generator.manual_seed(0)
            return torch.svd_lowrank(rows, n_components, niter=1)[2]
    exact = rows.double()
    if m <= d:
        return torch.linalg.svd(exact, full_matrices=False).Vh.T.to(rows.dtype)
    return torch.linalg.eigh(exact.T @ exact).eigenvectors.to(rows.dtype)


def blocks(result: Tensor, rows: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of a result (m, ...) with the row numbers that they are computed from, `width` features in a row."""
    block = block_of(width)
    return zip(result.split(block), rows.split(block), strict=True)
