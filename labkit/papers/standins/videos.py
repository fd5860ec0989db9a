"""Videos of a stand-in: a few frames, of which the one that counts shows the class and the others its negative."""

from __future__ import annotations

import io
from fractions import Fraction

from labkit.papers.standins.images import pixels
from labkit.papers.standins.miniature import needed

FRAMES = 7
MIDDLE = FRAMES // 2 + 1  # counted from 0, as TURTLE's authors take it: see `labkit.data.layout_kinds.Videos`
CONTAINERS = {"avi": ("avi", "mpeg4"), "mp4": ("mp4", "mpeg4")}


def video_file(name: str, number: int, split: str, index: int, ending: str) -> bytes:
    """A video of seven frames, 32 x 32.

    Args:
        name, number, split, index: as in `labkit.papers.standins.images.pixels`, which the middle frame shows.
        ending: "avi" or "mp4".

    Raises:
        DataError: PyAV is not installed.
    """
    av = needed("av", name)
    image = pixels(name, number, split, index)
    container, codec = CONTAINERS[ending]
    file = io.BytesIO()
    with av.open(file, "w", container, options={"fflags": "+bitexact"}) as target:
        stream = target.add_stream(codec, rate=25, options={"qscale": "2", "flags": "+bitexact+qscale"})
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
        stream.codec_context.gop_size = 1  # no frame is predicted from its neighbor
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 25)
        for k in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(image if k == MIDDLE else 255 - image, format="rgb24")
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return file.getvalue()
