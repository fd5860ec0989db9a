"""Images put into a folder for each cluster: planned and shown first, undone by a file that is there before any moves.

`undo.json` holds, for every image, where it was and where it goes. It is written before the first file is touched, and
what is done is read off the files themselves: so a sort that was killed at any moment goes on when it is asked for
again, or is put back as a whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from labkit._files import LOCK, locked_folder, sweep, temporary_folder
from labkit.errors import DataError, quote, shown
from labkit.own.arrangement import arrange
from labkit.own.clustering import Clustering
from labkit.own.placing import copy_file, free_space, link_file, move_file, same_content, size_on, size_text
from labkit.own.undo_file import HOW, UNDO, Step, read_undo, write_undo

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the next file will not go either


@dataclass(frozen=True)
class SortPlan:
    """What a sort will do; nothing is touched yet.

    Attributes:
        new: the new folder.
        how: "copy", "link" or "move".
        steps: all of it, also what an earlier run has done.
        todo: how many images are still to be put there.
        missing: images that are neither where they were nor there.
        space: bytes that it takes on the disk of the new folder.
        is_begun: an earlier run has written the undo file.
    """

    new: Path
    how: str
    steps: list[Step] = field(repr=False)
    todo: int
    missing: list[Path] = field(repr=False)
    space: int
    is_begun: bool

    def preview(self, n: int = 5) -> list[str]:
        """What will be done, in lines for people: how many images to how many folders, and the first of them."""
        folders = Counter(step.target.parts[0] for step in self.steps)
        lines = [f"{self.how} {self.todo:,} images to {len(folders)} folders in {shown(self.new)}"]
        if self.is_begun:
            lines[0] += f" ({len(self.steps) - self.todo - len(self.missing):,} are there from an earlier run)"
        lines += [f"  {count:>7,}  {folder}" for folder, count in sorted(folders.items())]
        gone = set(self.missing)
        first = [step for step in self.steps if step.source not in gone][:n]
        lines += ["such as", *(f"  {shown(step.source)} -> {shown(str(step.target))}" for step in first)]
        if self.missing:
            lines.append(
                f"{len(self.missing):,} images are no longer where they were, such as {shown(self.missing[0])}"
            )
        lines.append(f"space needed: {size_text(self.space)} of {size_text(free_space(self.new))} that are free")
        return lines


@dataclass(frozen=True)
class SortResult:
    """How many images are in their places, and which could not be put there, with the reason."""

    done: int
    left: dict[Path, str]


def plan_sort(clustering: Clustering, new: Path, how: str) -> SortPlan:
    """Where every image would go; images that a review rejected go to the folder "rejected".

    Args:
        clustering: n images.
        new: a folder that is not there yet, or empty, or of an earlier run of the same sort.
        how: "copy"; "link" for symbolic links; or "move".

    Raises:
        DataError: the new folder holds something else, lies among the images, or its disk has too little space.
    """
    if how not in HOW:
        raise DataError(f"how is {quote(how)}. Expected one of {', '.join(HOW)}.")
    new, root = new.absolute(), clustering.root.absolute()
    inside = Path(os.path.realpath(new)).is_relative_to(os.path.realpath(root))
    if os.path.realpath(new) == os.path.realpath(root) or (inside and how != "move"):
        raise DataError(
            f"{shown(new)} lies in the folder of the images, where the next run would find each image twice. Choose a "
            "folder beside it."
        )
    steps = [Step(path.absolute(), place) for path, place in arrange(clustering, rejected=True)]
    begun = _read_begun(new, how, steps)
    states = [_where(step, new) for step in begun or steps]
    todo = [step for step, (here, there) in zip(steps, states, strict=True) if here and (how == "move" or not there)]
    missing = [step.source for step, (here, there) in zip(steps, states, strict=True) if not here and not there]
    if len(missing) == len(steps):
        raise DataError(
            f"none of the {len(steps):,} images is where it was, in {shown(root)}. If a sort has moved them, put them "
            "back first (labkit sort --undo)."
        )
    space = 0 if how == "link" else sum(size_on(step.source, new, moved=how == "move") for step in todo)
    if space > free_space(new):
        raise DataError(
            f"the images take {size_text(space)}, and {shown(new)} has {size_text(free_space(new))} free. Use --link, "
            "or choose another disk."
        )
    if begun is None:
        begun = [Step(step.source, step.target, _link_of(step.source)) for step in steps]
    return SortPlan(new, how, begun, len(todo), missing, space, os.path.lexists(new / UNDO))


def carry_out(plan: SortPlan, *, progress: bool = False) -> SortResult:
    """Put the images into their places; nothing is replaced. What cannot be put there stays where it is.

    Raises:
        DataError: the new folder cannot be written, another process sorts into it, or its disk is full.
    """
    made = not os.path.lexists(plan.new) or _is_left_by_a_killed_run(plan.new)
    left: dict[Path, str] = {}
    with _writing(plan.new) as scratch:
        if not os.path.lexists(plan.new / UNDO):
            _expect_empty(plan.new)
            write_undo(plan.new, plan.how, made, plan.steps)
        else:
            _sweep_homes(plan.steps)
        for folder in sorted({step.target.parts[0] for step in plan.steps}):
            (plan.new / folder).mkdir(exist_ok=True)
        for step in tqdm(plan.steps, desc=plan.how, unit="image", disable=not progress):
            reason = _attempt(_do, plan.how, step, plan.new, scratch)
            if reason:
                left[step.source] = reason
    return SortResult(len(plan.steps) - len(left), left)


def undo_sort(new: Path, *, progress: bool = False) -> SortResult:
    """Put everything back, and remove what the sort made and nothing else; nothing is replaced.

    A copy that was changed, or whose image is gone, is kept. Where all is back, the undo file and the folders that are
    empty go as well.

    Raises:
        DataError: there is no undo file, or it is damaged, or another process sorts there.
    """
    new = new.absolute()
    if _is_left_by_a_killed_run(new):  # before it moved anything, or after all was back
        with _writing(new):
            pass
        new.rmdir()
        return SortResult(0, {})
    kept = read_undo(new)
    left: dict[Path, str] = {}
    with _writing(new) as scratch:
        _sweep_homes(kept.steps)
        for step in tqdm(kept.steps, desc="undo", unit="image", disable=not progress):
            reason = _attempt(_undo, kept.how, step, new, scratch)
            if reason:
                left[new / step.target] = reason
        for name in {step.target.parts[0] for step in kept.steps}:
            with contextlib.suppress(OSError):  # where other files are in it
                (new / name).rmdir()
        if not left:
            (new / UNDO).unlink()
    if not left and kept.made:
        with contextlib.suppress(OSError):
            new.rmdir()
    return SortResult(len(kept.steps) - len(left), left)


# ------------------------------------------------------------------------------------------------------------- one file


def _do(how: str, step: Step, new: Path, scratch: Path) -> str:
    """Put an image into its place; "" where it is there now, else why not."""
    target = new / step.target
    here, there = _where(step, new)
    if not here:
        return "" if there else "it is no longer where it was"
    if there and how == "move":
        return _drop(step.source, target, step, "the place that it goes to holds another file")
    if there:
        is_ours = _is_link_to(target, step) if how == "link" else same_content(step.source, target, quick=True)
        return "" if is_ours else f"another file is at {shown(target)}"
    if how == "copy":
        copy_file(step.source, target, scratch)
    elif how == "link":
        link_file(step.source, target)
    else:
        move_file(step.source, target, scratch)
    return ""


def _undo(how: str, step: Step, new: Path, scratch: Path) -> str:
    """Take back what was done with an image; "" where nothing of it is left, else why it is kept."""
    target = new / step.target
    here, there = _where(step, new)
    if not there or target.parent.is_symlink():
        return ""
    if how == "link":
        if not _is_link_to(target, step):
            return "it is not the link that was made"
        target.unlink()
    elif here:
        return _drop(target, step.source, step, f"it differs from {shown(step.source)}", quick=how == "copy")
    elif how == "copy":
        return f"the image that it is a copy of is gone: {shown(step.source)}"
    else:
        step.source.parent.mkdir(parents=True, exist_ok=True)
        is_elsewhere = target.parent.stat().st_dev != step.source.parent.stat().st_dev
        home = temporary_folder(step.source.parent, ".undo.") if is_elsewhere else contextlib.nullcontext(scratch)
        with home as place:
            move_file(target, step.source, place, link=step.link)
    return ""


def _drop(path: Path, other: Path, step: Step, otherwise: str, *, quick: bool = False) -> str:
    """Remove one of two that are the same image; "" if so, else why not."""
    if _real(path) == _real(other):
        return "both names lead to one file"
    if path.is_symlink() or other.is_symlink():
        same = path.is_symlink() and other.is_symlink() and os.path.realpath(path) == os.path.realpath(other)
    else:
        same = same_content(path, other, quick=quick)
    if not same:
        return otherwise
    path.unlink()
    return ""


def _attempt(act: Callable[[str, Step, Path, Path], str], how: str, step: Step, new: Path, scratch: Path) -> str:
    """Why a step was not done; "" if it was. An error that every other step would meet is raised."""
    try:
        return act(how, step, new, scratch)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"{shown(new)} cannot take more ({error.strerror}). Make room and give the same command again, or put "
                f"all back: labkit sort --undo {shown(new)}"
            ) from error
        if how == "link" and act is _do and not isinstance(error, FileExistsError):
            raise DataError(
                f"symbolic links cannot be made in {shown(new)} ({error.strerror}). Use --copy, or another disk."
            ) from error
        return error.strerror or str(error)


def _where(step: Step, new: Path) -> tuple[bool, bool]:
    """Whether something is where the image was, and where it goes."""
    return os.path.lexists(step.source), os.path.lexists(new / step.target)


def _is_link_to(target: Path, step: Step) -> bool:
    return target.is_symlink() and os.path.realpath(target) == os.path.realpath(step.source)


def _real(path: Path) -> Path:
    """A path with the links of its folders resolved, but not the file's own."""
    return Path(os.path.realpath(path.parent), path.name)


def _link_of(path: Path) -> str | None:
    return str(path.readlink()) if path.is_symlink() else None


# ------------------------------------------------------------------------------------------------------- the new folder


@contextlib.contextmanager
def _writing(new: Path) -> Iterator[Path]:
    """Be the only process that sorts there; a folder for files that are not whole yet, which is gone afterwards."""
    try:
        with locked_folder(new, wait=False), temporary_folder(new, ".sort.") as scratch:
            sweep(new / UNDO)
            yield scratch
    except OSError as error:
        raise DataError(
            f"{shown(new)} cannot be sorted into ({error.strerror or error}). Choose another folder."
        ) from error


def _expect_empty(new: Path) -> None:
    if os.path.lexists(new) and not new.is_dir():
        raise DataError(f"{shown(new)} is not a folder. Choose a folder that is new or empty.")
    others = sorted(path.name for path in new.iterdir() if not _is_leftover(path.name)) if new.is_dir() else []
    if others:
        raise DataError(
            f"{shown(new)} holds files already, such as {shown(others[0])}, and no {UNDO} of a sort. Choose a folder "
            "that is new or empty."
        )


def _sweep_homes(steps: list[Step]) -> None:
    """Remove what an undo left beside the images when it was killed."""
    for folder in {step.source.parent for step in steps}:
        sweep(folder / "undo")


def _is_leftover(name: str) -> bool:
    """Whether a killed run left it, and the next one takes it away."""
    return name == LOCK or name.startswith((f".{UNDO}.", ".sort."))


def _is_left_by_a_killed_run(new: Path) -> bool:
    names = [path.name for path in new.iterdir()] if new.is_dir() else []
    return bool(names) and all(map(_is_leftover, names))


def _read_begun(new: Path, how: str, steps: list[Step]) -> list[Step] | None:
    """The steps of an earlier run of the same sort; None where there was none."""
    if not os.path.lexists(new / UNDO):
        _expect_empty(new)
        return None
    kept = read_undo(new)
    same = [(step.source, step.target) for step in kept.steps] == [(step.source, step.target) for step in steps]
    if kept.how != how or not same:
        raise DataError(
            f"{shown(new)} holds a sort of another result, or one that was to {kept.how}. Put that back first (labkit "
            f"sort --undo {shown(new)}), or choose another folder."
        )
    return kept.steps
