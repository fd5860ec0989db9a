"""Tables of reproductions: ours beside what was published, "not run" where nothing was run.

A stand-in is a few invented images in a dataset's layout, so its rows have tables of their own, without any published
number. A difference is given only where the models are those of the published number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.papers.protocol import DATASETS, MEAN_PER_CLASS, PAPERS, PUBLISHED_SPACES, SCALES
from labkit.papers.published import must_rows, turtle_rows

if TYPE_CHECKING:
    import pandas as pd

NOT_RUN, NOT_PUBLISHED = "not run", "–"
BASELINES = {"zero_shot": "zero-shot", "k_means": "k-means", "linear_probe": "linear-probe"}
NAMES = {"turtle": "TURTLE", "must": "MUST"}
TITLES = {"zero_shot": "zero-shot", "k_means": "K-means", "linear_probe": "linear probe", **NAMES}

STAND_INS = (
    "Stand-ins: a rehearsal on a few invented images a dataset, {n_test} in the test split, which only shows that all "
    "runs. The numbers mean nothing and are not to be compared with published ones."
)
ONE_A_CLASS = "With one test image a class even random clusters have an NMI of 80 to 96, and an ARI of 0."
REAL = (
    "In percent on the test split; published numbers have columns of their own. A difference, in points, is given "
    "where the models are those of the publication."
)
THEIRS = {
    "turtle": "Published TURTLE is with CLIP ViT-L/14 + DINOv2 ViT-g/14 (Gadetsky et al., ICML 2024); published "
    "zero-shot and linear probes are of others, with CLIP ViT-L/14 alone.",
    "must": "Published numbers are those of Li et al., ICLR 2023.",
}


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        paper, profile, stand_in: what its rows have in common.
        title, note: for people.
        frame: the numbers, fractions; NaN where not run or not published. "difference" is ours less the published.
        columns, rows: the same as text, in percent.
    """

    paper: str
    profile: str
    stand_in: bool
    title: str
    note: str
    frame: pd.DataFrame
    columns: list[str]
    rows: list[list[str]]

    def lines(self, datasets: Collection[str] | None = None) -> list[str]:
        """For a terminal: columns that stand below one another, of these datasets only where some are given; of
        stand-ins with the note.
        """
        some = [datasets is None or name in datasets for name in self.frame["dataset"]]
        cells = [self.columns, *(row for row, is_in in zip(self.rows, some, strict=True) if is_in)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        texts = 2 if self.paper == "must" else 1
        note = [self.note] if self.stand_in else []
        return [self.title, *note, *("  ".join(aligned(row, widths, texts=texts)).rstrip() for row in cells)]

    def markdown(self) -> str:
        rule = ["---" if i < (2 if self.paper == "must" else 1) else "---:" for i in range(len(self.columns))]
        rows = [self.columns, rule, *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
        return f"## {self.title}\n\n{self.note}\n\n{table}\n"


def sections(rows: pd.DataFrame) -> list[Section]:
    """The tables of all results, from `labkit.papers.results.read_rows`: of each paper and profile, stand-ins last."""
    rows = _latest(rows)
    profiles = _profiles(rows)
    found = []
    for stand_in in (False, True):
        for paper in PAPERS:
            for profile in _in_order(profiles[(rows["paper"] == paper) & (rows["stand_in"] == stand_in)]):
                own = rows[(rows["paper"] == paper) & (rows["stand_in"] == stand_in) & (profiles == profile)]
                found.append(_section(paper, profile, stand_in, own))
    return found


def _profiles(rows: pd.DataFrame) -> pd.Series:
    return rows["settings"].map(lambda given: str(given.get("profile", "")))


def _latest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of results that differ in settings alone the newest: a profile of an older labkit may have had others."""
    rows = rows.sort_values("date", kind="stable")
    same = ["paper", "dataset", "stand_in", "split", "method", "metric", "seed"]
    keys = rows[same].assign(profile=_profiles(rows), spaces=rows["spaces"].map(tuple))
    return rows[~keys.duplicated(keep="last")]


def _in_order(profiles: pd.Series) -> list[str]:
    """The paper's own first, then those that are nearer to it."""
    known = list(SCALES)[::-1]
    return sorted(set(profiles), key=lambda name: (known.index(name) if name in known else len(known), name))


def _section(paper: str, profile: str, stand_in: bool, rows: pd.DataFrame) -> Section:
    frame = _turtle_frame(rows, stand_in) if paper == "turtle" else _must_frame(rows, stand_in)
    not_run = ~frame["dataset"].isin(rows["dataset"])
    frame = frame.iloc[not_run.argsort(kind="stable")].reset_index(drop=True)  # what was run comes first
    columns, text = (_turtle_text if paper == "turtle" else _must_text)(frame, stand_in)
    what = "stand-ins" if stand_in else "datasets"
    note = _stand_in_note(paper, frame) if stand_in else f"{REAL} {THEIRS[paper]}"
    if paper == "turtle" and not stand_in:
        sources = {of for column in _published().attrs["sources"].values() for of in column.values()}
        note += f" Sources of published zero-shot and probes: {'; '.join(sorted(sources))}."
    spaces = sorted({" + ".join(given) for given in rows["spaces"]})
    return Section(
        paper,
        profile,
        stand_in,
        f"{NAMES[paper]}, profile {profile}, {what}",
        f"{note} Ours is with {'; '.join(spaces)}.",
        frame.assign(paper=paper, profile=profile, stand_in=stand_in),
        columns,
        text,
    )


def _stand_in_note(paper: str, frame: pd.DataFrame) -> str:
    least, most = (f"{n:,.0f}" for n in (frame["n_test"].min(), frame["n_test"].max()))
    note = STAND_INS.format(n_test=least if least == most else f"{least} to {most}")
    return f"{note} {ONE_A_CLASS}" if paper == "turtle" else note


@functools.cache
def _published() -> pd.DataFrame:
    return turtle_rows()  # from 26 manifests, which takes a second


def _turtle_frame(rows: pd.DataFrame, stand_in: bool) -> pd.DataFrame:
    """A row for each dataset: ours by method, published numbers beside them unless they are stand-ins."""
    import pandas as pd

    published = _published().set_index("dataset")
    run = list(dict.fromkeys(rows["dataset"]))
    names = run if stand_in else [*DATASETS["turtle"], *(name for name in run if name not in DATASETS["turtle"])]
    lines = []
    for name in names:
        own = rows[rows["dataset"] == name]
        theirs = {} if stand_in or name not in published.index else published.loc[name].to_dict()
        line: dict[str, Any] = {"dataset": name, **_sizes(own, theirs)}
        for column, method in BASELINES.items():
            line[column] = _value(own, method, "accuracy")
            line[f"{column}_published"] = _number(theirs.get(column.replace("k_means", "kmeans")))
        line["turtle"] = _value(own, "turtle", "accuracy")
        line["turtle_published"] = _number(theirs.get("accuracy"))
        same = all(tuple(spaces) == PUBLISHED_SPACES for spaces in own["spaces"][own["method"] == "turtle"])
        line["difference"] = line["turtle"] - line["turtle_published"] if same else math.nan
        line |= {metric: _value(own, "turtle", metric) for metric in ("nmi", "ari")}
        line["released"] = _value(own, "turtle-published", "accuracy")
        line["chosen"] = _chosen(own)
        lines.append(line)
    return pd.DataFrame(lines)


def _must_frame(rows: pd.DataFrame, stand_in: bool) -> pd.DataFrame:
    """A row for each dataset and model."""
    import pandas as pd

    published = {(row["dataset"], row["model"]): row for row in _records(must_rows())}
    run = dict.fromkeys((name, spaces[0]) for name, spaces in zip(rows["dataset"], rows["spaces"], strict=True))
    lines = []
    for name, model in dict.fromkeys([*([] if stand_in else published), *run]):
        own = rows[(rows["dataset"] == name) & (rows["spaces"].map(lambda spaces, m=model: spaces == [m]))]
        theirs = {} if stand_in else published.get((name, model), {})
        metric = "mean_per_class" if name in MEAN_PER_CLASS else "accuracy"
        line: dict[str, Any] = {"dataset": name, "model": model, **_sizes(own, {}), "metric": metric}
        for column, method in (("zero_shot", "zero-shot"), ("must", "must")):
            line[column] = _value(own, method, metric)
            line[f"{column}_published"] = _number(theirs.get(column))
        line["difference"] = line["must"] - line["must_published"]
        lines.append(line)
    return pd.DataFrame(lines)


def _sizes(own: pd.DataFrame, theirs: Mapping[str, Any]) -> dict[str, float]:
    """Of the splits: as they were run, else as published."""
    if len(own):
        return {name: float(own[name].iloc[-1]) for name in ("n_train", "n_test")}
    return {name: _number(theirs.get(name)) for name in ("n_train", "n_test")}


def _value(own: pd.DataFrame, method: str, metric: str) -> float:
    """Mean over seeds; NaN where it was not run."""
    return float(own["value"][(own["method"] == method) & (own["metric"] == metric)].mean())


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _chosen(own: pd.DataFrame) -> str:
    """What the label-free choice of TURTLE came to, in a few words."""
    found = own["chosen"][(own["method"] == "turtle") & (own["metric"] == "accuracy")]
    if not len(found):
        return ""
    chosen = found.iloc[-1]
    rates = {name: chosen.get(name) for name in ("outer_lr", "inner_lr")}
    parts = [f"{name.replace('_lr', '')} {rate}" for name, rate in rates.items() if rate is not None]
    parts += [str(chosen["inner_start"])] if "inner_start" in chosen else []
    if chosen.get("n_found") != chosen.get("n_clusters"):
        parts.append(f"{chosen.get('n_found')} of {chosen.get('n_clusters')} clusters")
    return ", ".join(parts)


# ----------------------------------------------------------------------------------------------------------- as text


def _turtle_text(frame: pd.DataFrame, stand_in: bool) -> tuple[list[str], list[list[str]]]:
    columns: dict[str, str] = {}
    for name in (*BASELINES, "turtle"):
        columns[name] = TITLES[name] if stand_in else f"{TITLES[name]}, ours"
        if not stand_in and frame[f"{name}_published"].notna().any():
            columns[f"{name}_published"] = f"{TITLES[name]}, published"
    if frame["released"].notna().any():
        columns["released"] = "released labelings, our features"
    if not stand_in:
        columns["difference"] = "difference"
    columns |= {"nmi": "NMI", "ari": "ARI"}
    texts = [
        [_named(row["dataset"], stand_in), *_counts(row), *(_cell(name, row[name]) for name in columns), row["chosen"]]
        for row in _records(frame)
    ]
    return ["dataset", "train", "test", *columns.values(), "chosen without labels"], texts


def _must_text(frame: pd.DataFrame, stand_in: bool) -> tuple[list[str], list[list[str]]]:
    columns: dict[str, str] = {}
    for name in ("zero_shot", "must"):
        columns[name] = TITLES[name] if stand_in else f"{TITLES[name]}, ours"
        if not stand_in:
            columns[f"{name}_published"] = f"{TITLES[name]}, published"
    if not stand_in:
        columns["difference"] = "difference"
    texts = [
        [
            _named(row["dataset"], stand_in),
            row["model"],
            *_counts(row),
            *(_cell(name, row[name]) for name in columns),
            row["metric"].replace("_", " "),
        ]
        for row in _records(frame)
    ]
    return ["dataset", "model", "train", "test", *columns.values(), "metric"], texts


def _named(dataset: str, stand_in: bool) -> str:
    return f"{dataset} (stand-in)" if stand_in else dataset


def _counts(row: Mapping[str, Any]) -> Iterator[str]:
    for name in ("n_train", "n_test"):
        yield "" if math.isnan(row[name]) else f"{row[name]:,.0f}"


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "" if name == "difference" else NOT_PUBLISHED if name.endswith("_published") else NOT_RUN
    return f"{100 * value:+.1f}".replace("-", "−") if name == "difference" else f"{100 * value:.1f}"


def duration(hours: float) -> str:
    """A time in the unit that fits it."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else "< 1 min" if hours else "0"


def aligned(row: Sequence[str], widths: Sequence[int], *, texts: int) -> Iterator[str]:
    """The cells of a row at the widths of its columns: the first `texts` to the left, the others to the right."""
    for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if i < texts else cell.rjust(width)
