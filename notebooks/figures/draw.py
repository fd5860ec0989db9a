"""The diagrams of the notebooks: `python notebooks/figures/draw.py` writes them all beside itself, as SVG.

With `--check` nothing is written, and the exit status is 1 if a stored file differs from what would be drawn. A method
has the color that it has in labkit's charts: zero-shot blue, TURTLE pink, MUST red, a linear probe sky blue.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from course import STATIONS, course_map
from shapes import LARGE, SMALL, WIDTH, Diagram, features

HERE = Path(__file__).resolve().parent
WORN = ("shirt", "bag", "boot", "trousers")


def transfer() -> Diagram:
    """Supervised, zero-shot and unsupervised transfer, a row each."""
    d = Diagram(
        514,
        "Three types of transfer",
        "A table of three rows: what goes in, what is frozen, what is learned, what comes out. Supervised "
        "transfer, the linear probe: images, each with its label; the image encoder is frozen, a linear "
        "classifier is learned; out come classes. Zero-shot transfer, CLIP: images and the names of the classes; "
        "image encoder and text encoder are frozen, nothing is learned, images and names are only compared; out "
        "come classes. Unsupervised transfer, TURTLE: images only; one or several encoders are frozen, a labeling"
        " and its classifiers are learned; out come clusters that have numbers and no names. The less goes in, "
        "the more the frozen spaces have to hold.",
    )
    for x, head in ((227, "goes in"), (374, "frozen"), (514, "learned"), (646, "comes out")):
        d.words(x, 33, head, "soft", at="middle")
    rows = (
        (48, 118, "Supervised", "linear probe", "sky"),
        (174, 152, "Zero-shot", "CLIP", "blue"),
        (334, 140, "Unsupervised", "TURTLE", "pink"),
    )
    for y, h, name, method, hue in rows:
        d.band(y, h, hue)
        d.words(30, y + h / 2 - 2, name, f"{hue}-text", size=LARGE, bold=True)
        d.words(30, y + h / 2 + 17, method, "soft")

    y = 59  # supervised
    for i, icon in enumerate(WORN[:3]):
        d.image(162 + 46 * i, y + 10, icon)
        d.chip(160 + 46 * i, y + 55, 42, icon, "sky")
    d.arrow((298, y + 29), (316, y + 29))
    d.tower(318, y, 112, 58, "image encoder", size=SMALL)
    d.arrow((430, y + 29), (454, y + 29))
    d.arrow((298, y + 65), (308, y + 65), (308, y + 84), (514, y + 84), (514, y + 65))
    d.box(456, y, 116, 62, "sky")
    d.words(514, y + 27, "linear\nclassifier *w*", at="middle")
    d.arrow((572, y + 31), (608, y + 31))

    y = 185  # zero-shot
    for i, icon in enumerate(WORN[:3]):
        d.image(162 + 46 * i, y + 10, icon)
        d.chip(160 + 46 * i, y + 91, 42, icon, "blue")
    d.words(227, y + 83, "class names", "soft", size=SMALL, at="middle")
    for top, towards, name in ((0, 54, "image encoder"), (72, 76, "text encoder")):
        d.arrow((298, y + top + 29), (316, y + top + 29))
        d.tower(318, y + top, 112, 58, name, size=SMALL)
        d.arrow((430, y + top + 29), (442, y + top + 29), (442, y + towards), (454, y + towards))
    d.box(456, y + 34, 116, 62, "line", dashed=True)
    d.words(514, y + 62, "nothing,", at="middle")
    d.words(514, y + 79, "only compared", "soft", size=SMALL, at="middle")
    d.arrow((572, y + 65), (608, y + 65))

    y = 344  # unsupervised
    for i, icon in enumerate(WORN[:3]):
        d.image(162 + 46 * i, y + 41, icon)
    for k, top, towards in (("1", 0, 50), ("K", 66, 70)):
        d.arrow((298, y + 60), (306, y + 60), (306, y + top + 27), (316, y + top + 27))
        d.tower(318, y + top, 112, 54, f"encoder *φ*_{k}_", size=SMALL)
        d.arrow((430, y + top + 27), (442, y + top + 27), (442, y + towards), (454, y + towards))
    d.box(456, y + 29, 116, 62, "pink")
    d.words(514, y + 56, "labeling *τ* and\nclassifiers *w*_k_", size=12, at="middle")
    d.arrow((572, y + 60), (608, y + 60))

    for i, icon in enumerate(WORN[:3]):
        d.chip(614, 57 + 24 * i, 64, icon, "sky")
        d.chip(614, 217 + 24 * i, 64, icon, "blue")
        d.chip(614, 361 + 24 * i, 64, f"cluster {i}", "pink")
    d.words(646, 450, "no names", "soft", size=SMALL, at="middle")
    last = "MUST starts from the second or the third row, and trains the image encoder too."
    d.words(360, 497, last, "soft", size=SMALL, at="middle")
    return d


def clip() -> Diagram:
    """Training on pairs above, a classifier made of words below."""
    d = Diagram(
        668,
        "CLIP: two towers, one space",
        "Above, training. B images go through the image encoder and become the rows of x; B sentences go through the "
        "text encoder and become the rows of t; all are L2-normalized. Each image is compared with each sentence: a "
        "matrix of B times B cosines with its diagonal marked, where the true pairs stand. The cosines times a scale, "
        "one over the temperature, go through a softmax along each row and along each column, and both encoders learn "
        "until the diagonal wins. Below, zero-shot: both encoders are frozen. Sentences about C class names become the "
        "C rows of the weights of a classifier; one image becomes x and is compared with each row; the softmax gives a "
        "probability for each name. The classifier is made of words: no image had to be labeled.",
    )
    d.words(28, 40, "Training: which sentence belongs to which image?", "blue-text", size=LARGE, bold=True)
    d.key(600, 35, "blue", "learned")
    mid = [111 + 42 * i for i in range(4)]  # of the rows
    for y, icon in zip(mid, WORN, strict=True):
        d.image(118, y - 19, icon)
    d.words(28, 178, "*B* images")
    d.arrow((160, 174), (182, 174))
    d.tower(184, 115, 84, 118, "image\nencoder", "blue")
    d.arrow((268, 174), (298, 174))
    for i, y in enumerate(mid):
        d.cells(302, y - 6.5, features(1, 5, i), "blue")
    d.words(334, 90, "*x*", "blue-text", at="middle")
    d.words(334, 266, "L2-normalized", "soft", size=SMALL, at="middle")
    d.arrow((371, 174), (392, 174))
    cosines = [[0.85 if i == j else (0.1, 0.2, 0.05)[(i + 2 * j) % 3] for j in range(4)] for i in range(4)]
    d.cells(396, 90, cosines, "blue", 42)
    for i in range(4):
        d.shape("rect", "s-ink", x=396 + 42 * i, y=90 + 42 * i, width=42, height=42, rx=3, stroke_width=2)
    d.words(480, 78, "cosines (*B* × *B*)", at="middle")
    d.arrow((568, mid[1]), (598, mid[1]))
    d.words(640, 92, "softmax of\nscale · cosines", size=SMALL, at="middle")
    d.bars(610, 176, (0.08, 0.82, 0.06, 0.12), "blue", height=60, w=13)
    d.words(640, 194, "along each row,\nand each column", "soft", size=SMALL, at="middle")
    d.words(642, 242, "diagonal:\ntrue pairs", size=SMALL, at="middle", bold=True)
    d.arrow((605, 240), (568, 238), head=False, hue="ink", width=1)

    for i, icon in enumerate(("a shirt", "a bag", "a boot", "trousers")):
        d.words(28, 312 + 20 * i, f"“a photo of {icon}.”", size=12)
    d.words(28, 396, "*B* sentences")
    d.arrow((166, 338), (182, 338))
    d.tower(184, 290, 84, 96, "text\nencoder", "blue")
    d.arrow((268, 338), (404, 338))
    d.words(334, 357, "L2-normalized", "soft", size=SMALL, at="middle")
    for j in range(4):
        d.cells(410.5 + 42 * j, 306, [[value] for value in features(1, 5, j)[0]], "blue")
        d.arrow((417 + 42 * j, 300), (417 + 42 * j, 264))
    d.words(562, 343, "*t*", "blue-text")
    d.words(600, 324, "scale is one\nover the\ntemperature,\nlearned too", "soft", size=SMALL)

    d.shape("path", "s-rim", d=f"M16 420h{WIDTH - 32}", stroke_width=1.5)
    d.words(28, 453, "Zero-shot: a classifier made of words", "blue-text", size=LARGE, bold=True)
    d.key(600, 448, "frozen", "frozen")
    for i, icon in enumerate(("a shirt", "a bag", "a boot")):
        d.words(28, 497 + 20 * i, f"“a photo of {icon}.”", size=12)
    d.words(28, 561, "*C* class names")
    d.arrow((166, 513), (182, 513))
    d.tower(184, 472, 84, 82, "text\nencoder")
    d.arrow((268, 513), (298, 513))
    d.cells(302, 493.5, features(3, 5, 1), "blue")
    d.words(334, 482, "weights (*C*, *d*)", size=12, at="middle")
    d.image(118, 590, "bag")
    d.words(28, 613, "one image")
    d.arrow((160, 609), (182, 609))
    d.tower(184, 568, 84, 82, "image\nencoder")
    d.arrow((268, 609), (298, 609))
    d.cells(302, 602.5, features(1, 5, 1), "blue")
    d.words(334, 634, "*x*", "blue-text", at="middle")
    d.arrow((371, 513), (390, 513), (390, 552), (410, 552))
    d.arrow((371, 609), (390, 609), (390, 570), (410, 570))
    d.box(412, 532, 116, 58, "line", dashed=True)
    d.words(470, 557, "softmax of\nscale · cosines", size=SMALL, at="middle")
    d.arrow((528, 561), (556, 561))
    for i, (icon, value) in enumerate((("shirt", 0.16), ("bag", 0.78), ("boot", 0.06))):
        d.words(602, 541 + 24 * i, icon, at="end", bold=icon == "bag")
        d.shape("rect", "f-blue", x=611, y=529 + 24 * i, width=90 * value, height=15, rx=1)
    return d


SOFT_LABELS = {  # of images in three clusters, in two spaces, and their mean
    "1": ((0.8, 0.1, 0.1), (0.2, 0.7, 0.1), (0.1, 0.2, 0.7), (0.5, 0.4, 0.1)),
    "K": ((0.6, 0.3, 0.1), (0.1, 0.8, 0.1), (0.3, 0.1, 0.6), (0.7, 0.1, 0.2)),
    "": ((0.7, 0.2, 0.1), (0.15, 0.75, 0.1), (0.2, 0.15, 0.65), (0.6, 0.25, 0.15)),
}


def turtle() -> Diagram:
    """The two levels of TURTLE, and where gradients flow and where not."""
    d = Diagram(
        560,
        "TURTLE: two levels",
        "Images without labels go through K frozen backbones phi k. Outer level: in each space a task encoder theta k "
        "proposes probabilities tau k, and their mean over the spaces is the soft labeling tau. Inner level: in each "
        "space a linear classifier w k takes M steps on its cross-entropy against tau, and a stop-gradient on tau "
        "holds the labeling fixed. Back on the outer level the loss is the cross-entropy of these classifiers against "
        "tau, with a stop-gradient on w k, minus gamma times the entropy of the mean of tau k. Its gradient, a dashed "
        "arrow, flows back through tau, and only through tau, into theta k. So the labeling moves to where linear "
        "classifiers learn it in a few steps, in all spaces at once, and clusters stay alike in size.",
    )
    d.band(14, 264, "pink")
    d.words(30, 42, "Outer level: make the labeling easier to learn", "pink-text", size=LARGE, bold=True)
    for i, icon in enumerate(WORN[:3]):
        d.image(30, 102 + 44 * i, icon, 36)
    d.words(48, 252, "no labels", "soft", size=SMALL, at="middle")
    for k, y, toward in (("1", 104, 1), ("K", 224, -1)):
        forth, back = y - 8 * toward, y + 8 * toward
        d.arrow((70, 164), (80, 164), (80, y), (94, y))
        d.tower(96, y - 38, 84, 76, f"backbone\n*φ*_{k}_")
        d.arrow((180, y), (214, y))
        d.box(216, y - 28, 96, 56, "pink")
        d.words(264, y - 6, "task encoder", size=SMALL, at="middle")
        d.words(264, y + 15, f"*θ*_{k}_", at="middle")
        d.arrow((312, forth), (342, forth))
        d.arrow((344, back), (314, back), hue="red", dashed=True)
        d.cells(346, y - 26, SOFT_LABELS[k], "pink")
        d.words(365.5, y - 33, f"*τ*_{k}_", at="middle")
        d.arrow((387, forth), (424, forth), (424, 164 - 14 * toward), (452, 164 - 14 * toward))
        d.arrow((456, 164), (408, 164), (408, back), (389, back), hue="red", dashed=True)
    d.words(138, 169, "⋮", at="middle")
    d.words(264, 169, "⋮", at="middle")
    d.cells(456, 132, SOFT_LABELS[""], "pink", 16)
    d.words(480, 105, "labeling *τ*", at="middle", bold=True)
    d.words(480, 122, "mean of *τ*_k_", size=12, at="middle")
    d.arrow((506, 154), (548, 154))
    d.words(526, 146, "*τ*, *τ*_k_", size=11, at="middle")
    d.arrow((548, 174), (508, 174), hue="red", dashed=True)
    d.box(550, 112, 142, 104, "pink")
    d.words(621, 138, "outer loss", at="middle", bold=True)
    d.words(621, 166, "Σ_k_ CE(*w*_k_, *τ*)", at="middle")
    d.words(621, 194, "− *γ* Σ_k_ *H*(mean *τ*_k_)", size=12, at="middle")

    d.band(302, 214, "sky")
    d.words(30, 330, "Inner level: learn the labeling", "sky-text", size=LARGE, bold=True)
    for k, y, toward in (("1", 374, 1), ("K", 454, -1)):
        forth, back = y - 8 * toward, y + 8 * toward
        d.words(174, y + 5, f"*φ*_{k}_(*x*)", at="end")
        d.arrow((182, y), (214, y))
        d.box(216, y - 27, 96, 54, "sky")
        d.words(264, y - 6, "linear classifier", size=11, at="middle")
        d.words(264, y + 15, f"*w*_{k}_", at="middle")
        d.arrow((312, forth), (380, forth), (380, 414 - 14 * toward), (406, 414 - 14 * toward))
        d.arrow((408, 414), (364, 414), (364, back), (314, back), hue="red", dashed=True)
    d.words(264, 419, "⋮", at="middle")
    d.words(354, 418, "*M* steps", "red-text", size=12, at="end")
    d.box(408, 372, 144, 84, "sky")
    d.words(480, 402, "inner loss", at="middle", bold=True)
    d.words(480, 432, "Σ_k_ CE(*w*_k_, *τ*)", at="middle")
    d.arrow((480, 198), (480, 370))
    d.arrow((264, 481), (264, 498), (621, 498), (621, 218))
    d.words(440, 490, "all *w*_k_, after *M* steps", size=12, at="middle")
    for x in (480, 621):
        d.stop(x, 290, upright=False)
        d.words(x - 14, 294, "stop-gradient", size=SMALL, at="end")
    d.key(30, 540, "frozen", "frozen")
    d.key(136, 540, "gradient", "gradient")
    d.key(262, 540, "stop", "stop-gradient: values pass, gradients do not")
    return d


MASKED = ((0, 2), (1, 0), (2, 3), (3, 1))


def must() -> Diagram:
    """One step of MUST: two views, teacher and student, four losses."""
    d = Diagram(
        554,
        "MUST: one step of masked self-training",
        "An image without a label becomes two views. The weak view goes to the EMA teacher, whose probabilities q make "
        "a pseudo-label y hat; it is kept if max q is above the threshold tau. The strong view, with some patches "
        "masked, goes to the student. The student has four losses. Self-training: the cross-entropy of its "
        "probabilities p with the kept pseudo-labels. Fairness: the mean of p over the batch should use all classes. "
        "Masked image: the pixels of the masked patches should be predicted. Alignment: masked patches, v patch, "
        "should lie where the whole image, v CLS, lies. The gradient of the weighted sum, a dashed arrow, flows into "
        "the student only; a stop-gradient keeps it from the teacher. After each step an EMA update moves the teacher "
        "a little towards the student: an easy question, answered by an average of past students, teaches a hard one.",
    )
    d.words(28, 40, "One step of masked self-training", "red-text", size=LARGE, bold=True)
    d.image(28, 208, "boot", 60)
    d.words(58, 288, "no label", "soft", size=SMALL, at="middle")
    for y in (112, 364):
        d.arrow((90, 238), (104, 238), (104, y), (122, y))
        d.arrow((178, y), (206, y))
    d.image(124, 85, "boot", 54)
    d.words(151, 76, "weak view", size=12, at="middle")
    d.image(124, 337, "boot", 54, MASKED)
    d.words(151, 411, "strong view *x*,\nmasked", size=12, at="middle")

    d.tower(208, 66, 96, 92, "EMA\nteacher", "red", faint=True)
    d.arrow((304, 112), (334, 112))
    d.words(370, 70, "*q*", at="middle")
    d.bars(342, 136, (0.08, 0.74, 0.12, 0.05), "red", height=60)
    d.arrow((338, 108), (402, 108), hue="ink", dashed=True, head=False, width=1.2)
    d.words(408, 112, "*τ*")
    d.arrow((428, 112), (536, 112))
    d.words(478, 102, "if max *q* > *τ*", size=12, at="middle")
    d.chip(538, 102, 120, "pseudo-label *ŷ*", "red")
    d.arrow((598, 122), (598, 180))
    d.stop(598, 149, upright=False)
    d.words(612, 153, "stop-gradient", size=SMALL)

    d.tower(208, 246, 96, 236, "student", "red")
    d.arrow((256, 256), (256, 153), hue="ink", width=2.4)
    d.words(268, 196, "EMA update:", size=12, bold=True)
    d.words(268, 214, "*d* · teacher + (1 − *d*) · student", size=12)
    for y in (288, 364, 440):
        d.arrow((304, y), (334, y))
        d.arrow((448 if y == 440 else 428, y), (510, y))
    d.bars(342, 308, (0.2, 0.6, 0.3, 0.1), "red", height=50)
    d.words(410, 293, "*p*")
    d.arrow((428, 288), (476, 288), (476, 212), (510, 212))
    d.patches(346, 342, MASKED, "green", 44)
    d.words(410, 369, "*x̂*")
    d.cells(340, 425, features(1, 5, 2), "pink", 11)
    d.cells(340, 444, features(1, 5, 3), "pink", 11)
    d.words(401, 434, "*v*_patch_", size=12)
    d.words(401, 454, "*v*_CLS_", size=12)
    losses = (
        (212, "blue", "self-training", "st", "CE(*p*, *ŷ*), where kept"),
        (288, "orange", "fairness", "fair", "mean *p*: all classes in use"),
        (364, "green", "masked image", "mim", "*x̂* ≈ *x*, where masked"),
        (440, "pink", "alignment", "align", "masked *v*_patch_ ≈ *v*_CLS_"),
    )
    for y, hue, name, short, meaning in losses:
        d.box(512, y - 30, 176, 60, hue)
        d.words(522, y - 6, name, bold=True)
        d.words(678, y - 6, f"*L*_{short}_", at="end")
        d.words(522, y + 16, meaning, size=SMALL)
        d.arrow((688, y), (702, y), head=False, hue="red", dashed=True)
    d.arrow((702, 212), (702, 504), (256, 504), (256, 474), hue="red", dashed=True)
    d.key(28, 530, "gradient", "gradient, into the student only")
    total = "*L*  =  *L*_st_ + *w*_fair_ *L*_fair_ + *L*_mim_ + *w*_align_ *L*_align_"
    d.words(702, 534, total, "red-text", at="end")
    return d


DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    **{f"map-{number}": lambda number=number: course_map(number) for number, station in STATIONS.items() if station[2]},
    "transfer": transfer,
    "clip": clip,
    "turtle": turtle,
    "must": must,
}


def main(arguments: list[str]) -> int:
    """Write or check all; the exit status."""
    stale = 0
    for name, draw in DIAGRAMS.items():
        path, drawn = HERE / f"{name}.svg", draw().svg(name).encode()
        if "--check" not in arguments:
            path.write_bytes(drawn)
        elif not path.is_file() or path.read_bytes() != drawn:
            print(f"{path.name} is not what draw.py makes: run python notebooks/figures/draw.py")
            stale = 1
    return stale


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
