"""Videos: the middle frame of each stands for it, as in CLIP's and TURTLE's evaluation; decoded with PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit._files import expect_regular
from labkit.data.file_list import FileList
from labkit.errors import DataError, shorten, shown

if TYPE_CHECKING:
    from PIL import Image

VIDEOS = (".avi", ".mp4", ".mkv", ".webm")


@dataclass(frozen=True)
class MiddleFrames:
    """Decodes the middle frame of video i; a class, so that worker processes can be sent it."""

    files: FileList

    def __call__(self, i: int) -> Image.Image:
        return middle_frame(self.files[i])


def middle_frame(path: Path) -> Image.Image:
    """The frame with the number n // 2 + 1, counted from 0, of a video that says it has n frames; RGB.

    So TURTLE's authors take it (and VISSL before). Of a video that has fewer, which they leave out, it is the last one.

    Raises:
        DataError: PyAV is not installed; the file is missing, damaged, or holds no video.
    """
    try:
        import av
    except ImportError as error:
        raise DataError(
            f'the video {shown(path)} needs the package av (PyAV). Install it: pip install "labkit[papers]"'
        ) from error
    last = None
    try:
        expect_regular(path)
        # a path that begins like an address would be opened as one
        with av.open(f"file:{path}", format=_format(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            wanted = stream.frames // 2 + 1
            for i, frame in enumerate(container.decode(stream)):
                last = frame
                if i == wanted:
                    break
            if last is not None:
                return last.to_image()
    except Exception as error:  # FFmpeg has an error for everything
        if last is None:
            reason = shorten(str(error) or type(error).__name__, 200)
            raise DataError(
                f"the video {shown(path)} cannot be read ({reason}). It is damaged: fetch it again, or take it away."
            ) from error
        return last.to_image()  # what comes after is cut off
    raise DataError(f"the video {shown(path)} has no frames. It is damaged: fetch it again, or take it away.")


def _format(path: Path) -> str:
    """FFmpeg's reader of files with this ending; some others would open addresses, or further files."""
    return {".avi": "avi", ".mp4": "mov"}.get(path.suffix.lower(), "matroska")
