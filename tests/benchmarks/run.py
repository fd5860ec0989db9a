"""All benchmarks one after the other, then report.json and bench.png: python tests/benchmarks/run.py [--quick]

`make bench` runs this. A benchmark that fails is named in the report and in the exit status; a limit that is missed is
only named. Everything must be read on a machine that does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import arguments, table

HERE = Path(__file__).parent
SCRIPTS = (
    *("start", "features", "spaces", "must", "gain", "turtle", "text", "map", "models"),
    *(
        "choice",
        "choice_count",
        "choice_sweep",
        "real",
        "names",
        "folder",
        "later",
        "photos",
        "world",
        "scale",
        "shards",
    ),
)


def run(given: Any) -> dict[str, Any]:
    """Run every benchmark; the report as JSON."""
    report: dict[str, Any] = {"results": [], "failed": [], "machine": {}, "quick": given.quick}
    for name in SCRIPTS:
        print(f"--- {name}", flush=True)
        written = given.out / f"{name}.json"
        written.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / f"bench_{name}.py"), "--out", str(given.out)]
        command += ["--rounds", str(given.rounds)] + (["--quick"] if given.quick else [])
        if subprocess.run(command, check=False).returncode or not written.exists():
            report["failed"].append(name)
            continue
        part = json.loads(written.read_text("utf-8"))
        report["machine"] = part["machine"]
        report["results"] += part["results"]
    return report


def draw(results: list[dict[str, Any]], path: Path, title: str) -> None:
    """How far every number is on the right side of its limit: as a factor, and below as a difference in accuracy."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    limited = [result for result in results if result["limit"] is not None]
    factors = [r for r in limited if r["limit"] > 0 and r["ratio"] > 0][::-1]
    differences = [r for r in limited[::-1] if r not in factors and r["want"] == "at least"]
    sizes = [max(1, len(group)) for group in (factors, differences)]
    fig, axes = plt.subplots(
        2, figsize=(11, 0.24 * sum(sizes) + 2), layout="constrained", height_ratios=[size + 2 for size in sizes]
    )
    for ax, group, even in zip(axes, (factors, differences), (1.0, 0.0), strict=True):
        for y, result in enumerate(group):
            up = result["want"] == "at least"
            if even:
                margin = result["ratio"] / result["limit"] if up else result["limit"] / result["ratio"]
            else:
                margin = result["ratio"] - result["limit"]
            color = "#0072B2" if result["ok"] else "#D55E00"  # Okabe and Ito's blue and vermilion
            ax.plot([even, margin], [y, y], color=color, lw=3, solid_capstyle="butt")
            ax.plot(margin, y, "o" if result["ok"] else "X", color=color)
            text = f"{result['ratio']:.3g} ({result['want']} {result['limit']:g})"
            ax.annotate(text, (max(margin, even), y), (6, 0), textcoords="offset points", va="center", fontsize=7)
        ax.axvline(even, color="black", lw=1)
        ax.set_yticks(range(len(group)), [result["name"] for result in group], fontsize=7)
        ax.set_ylim(-0.7, max(1, len(group)) - 0.3)
        ax.margins(x=0.25)
    axes[0].set(xscale="log", xlabel="times better than the limit (left of 1: missed)")
    axes[1].set(xlabel="better than the limit by (left of 0: missed)")
    fig.suptitle(title)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main() -> int:
    given = arguments(__doc__)
    given.out.mkdir(parents=True, exist_ok=True)
    report = run(given)
    (given.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    machine, title = report["machine"], "tiny sizes, says nothing: only that it runs"
    if not given.quick and machine:
        title = f"{machine['cores']} cores, torch {machine['torch']}, medians of {given.rounds} rounds"
    draw(report["results"], given.out / "bench.png", title)
    print("---\n" + table(report["results"]))
    missed = sum(result["ok"] is False for result in report["results"])
    print(f"{len(report['results'])} results, {missed} limits missed, failed: {', '.join(report['failed']) or 'none'}")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
