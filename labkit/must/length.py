"""How long a run of MUST is: its steps, and how much of the model it began with is left in the EMA teacher."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.must.config import MustConfig

# In the published runs on DTD, Pets and Caltech-101 (120 to 180 steps) the teacher ends with 59 % of the model it began
# with, and they gain (Li et al., 2023); no other published run, and none of our presets on its dataset, keeps more.
MOST_LEFT = 0.6
MOST_EPOCHS = 100_000


@dataclass(frozen=True)
class Length:
    """A run on n images.

    Attributes:
        steps: how many there are.
        per_epoch: in one epoch.
        unused: images that each epoch leaves out, since its last batch would not be full.
        left: share of the model that it begins with in the weights of the EMA teacher at the end, Π decay: 1 is a
            teacher that learned nothing.
    """

    steps: int
    per_epoch: int
    unused: int
    left: float

    @property
    def is_too_short(self) -> bool:
        """Whether the teacher, which predicts, changes less than in any run that is known to gain."""
        return self.left > MOST_LEFT


def length_of(config: MustConfig, n_images: int) -> Length:
    """The length of a run; a batch is no larger than the data.

    Args:
        config: the settings.
        n_images: how many images it trains on, at least 1.
    """
    config = config.replace(batch_size=min(config.batch_size, n_images), accumulate=1)
    per_epoch = n_images // config.batch_size
    steps = per_epoch * config.epochs
    return Length(steps, per_epoch, n_images - per_epoch * config.batch_size, _left(config, steps))


def epochs_needed(config: MustConfig, n_images: int) -> int:
    """The fewest epochs of a run on so many images that is not too short."""
    config = config.replace(batch_size=min(config.batch_size, n_images), accumulate=1)
    per_epoch, left, step = n_images // config.batch_size, 1.0, 0
    while left > MOST_LEFT and step < MOST_EPOCHS:
        left *= config.ema_decay_at(step)
        step += 1
    return max(1, -(-step // per_epoch))


def _left(config: MustConfig, steps: int) -> float:
    left = 1.0
    for step in range(steps):
        left *= config.ema_decay_at(step)
        if left < 1e-6:
            break
    return left
