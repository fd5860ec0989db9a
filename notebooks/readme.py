"""Put the measured results and an image of found clusters into the README: `make readme`, after `make run`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

import labkit as lk
from labkit._files import atomic_write
from labkit.course.results import notes

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "notebooks" / "found_clusters.png"


def results_table(results_json: Path) -> str:
    """Markdown table of the test accuracies in results.json: a row for each method and choice of spaces."""
    report = json.loads(results_json.read_text(encoding="utf-8"))
    rows = pd.DataFrame(report["results"])
    rows = rows[(rows["metric"] == "accuracy") & (rows["split"] == "test")]
    rows["spaces"] = [" + ".join(spaces) for spaces in rows["spaces"]]
    keys = ["dataset", "method", "variant", "spaces", "seed", "selected_without_labels"]
    rows = rows.drop_duplicates(keys, keep="last")  # where two notebooks measured the same, the later one counts
    datasets = list(dict.fromkeys(rows["dataset"]))
    lines = [
        "| method | spaces | " + " | ".join(datasets) + " | notes |",
        "|---|---|" + "---|" * len(datasets) + "---|",
    ]
    for (method, variant, spaces), group in rows.groupby(["method", "variant", "spaces"], sort=False):
        name = f"{method} ({variant})" if variant else method
        note = _notes(group)
        cells = [_cell(group[group["dataset"] == dataset]) for dataset in datasets]
        lines.append(f"| {name} | {spaces} | " + " | ".join(cells) + f" | {note} |")
    facts = report["environment"]
    lines += [
        "",
        f"Test accuracy in percent. From `make run` on {facts['cpus']} CPU cores, torch {facts['packages']['torch']}.",
    ]
    return "\n".join(lines)


def _notes(rows: pd.DataFrame) -> str:
    """What must be known of the results in a line of the table, and of which datasets."""
    about: dict[str, list[str]] = {}
    for dataset, group in rows.groupby("dataset", sort=False):
        spaces, used = str(group["spaces"].iloc[0]).split(" + "), bool(group["labels_used"].any())
        for note in notes(str(dataset), spaces, labels_used=used, chosen=False):
            about.setdefault(note, []).append(str(dataset))
    everywhere = rows["dataset"].nunique()
    return "; ".join(note if len(of) == everywhere else f"{note} ({', '.join(of)})" for note, of in about.items())


def _cell(rows: pd.DataFrame) -> str:
    chosen = rows["selected_without_labels"].astype(bool)
    seeds = 100 * rows["value"][~chosen]
    text = f"{seeds.mean():.1f}" if len(seeds) else ""
    text += f" ± {seeds.std():.1f}" if len(seeds) > 1 else ""
    of_choice = [f"**{100 * value:.1f}**" for value in rows["value"][chosen]]
    return " ".join([*of_choice, f"({text})" if of_choice and text else text]).strip()


def gain_table(gain_json: Path) -> str:
    """Markdown table of what MUST gains, and of what its parts are worth, from the benchmark's gain.json."""
    report = json.loads(gain_json.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, str]] = {}
    for details in (result["details"] for result in report["results"]):
        for name, accuracies in details.get("accuracies", {}).items():
            bold = "**" if name.startswith("**") else ""
            rows.setdefault(name, {})[details["dataset"]] = f"{bold}{_mean(accuracies)}{bold}"
    datasets = list(dict.fromkeys(dataset for row in rows.values() for dataset in row))
    lines = ["| Pocket ViT | " + " | ".join(datasets) + " |", "|---|" + "---|" * len(datasets)]
    lines += [f"| {name} | " + " | ".join(row.get(d, "") for d in datasets) + " |" for name, row in rows.items()]
    machine = report["machine"]
    note = "Test accuracy in percent, mean ± standard deviation over seeds. From `tests/benchmarks/bench_gain.py` on "
    return "\n".join([*lines, "", f"{note}{machine['cores']} CPU cores, torch {machine['torch']}."])


def _mean(values: list[float]) -> str:
    percent = 100 * pd.Series(values)
    return f"{percent.mean():.1f}" + (f" ± {percent.std():.1f}" if len(values) > 1 else "")


def fill(text: str, name: str, block: str) -> str:
    """The README with what stands between two comments replaced."""
    pattern = f"<!-- {name} -->.*<!-- end of {name} -->"
    text, count = re.subn(pattern, lambda _: f"<!-- {name} -->\n{block}\n<!-- end of {name} -->", text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"README.md has no block <!-- {name} --> … <!-- end of {name} -->")
    return text


def draw_picture() -> None:
    """The most confident test images of each cluster that TURTLE finds on fashion-mini."""
    lab = lk.setup("pocket", notebook="readme")
    turtle = lk.Turtle(10, race=False, random_state=0).fit(lab.spaces("fashion-mini"))
    probs = turtle.predict_proba(lab.spaces("fashion-mini", split="test"))
    dataset = lab.images("fashion-mini", "test")
    fig = lk.plots.cluster_gallery([image for image, _ in dataset], probs.argmax(1), probs.max(1), n=12)
    with atomic_write(PICTURE) as temporary:
        fig.savefig(temporary, format="png", bbox_inches="tight")


def main() -> None:
    results = ROOT / "runs" / "latest" / "results.json"
    if not results.exists():
        sys.exit("there is no runs/latest/results.json yet: run `make run` first")
    readme, gains = ROOT / "README.md", ROOT / "runs" / "bench" / "gain.json"
    text = fill(readme.read_text(encoding="utf-8"), "results", results_table(results))
    if gains.exists():
        text = fill(text, "gains", gain_table(gains))
    draw_picture()
    with atomic_write(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
