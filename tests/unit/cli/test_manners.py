"""Manners: help with examples, typos answered with the nearest name, lists with commas, warnings of one line."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from labkit import cli
from labkit.cli import options
from labkit.errors import CollapseWarning

COMMANDS = list(cli.make_parser().commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_description_and_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    before, found, lines = capsys.readouterr().out.partition("\nexamples:\n")
    assert found
    assert f"usage: labkit {command}" in before
    examples = [line for line in lines.splitlines() if line.strip()]
    assert len(examples) >= 2
    assert all(line.startswith(("  labkit ", "  accelerate launch ")) for line in examples)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_commands_that_are_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    for line in capsys.readouterr().out.partition("\nexamples:\n")[2].splitlines():
        if line.startswith("  labkit ") and "…" not in line:
            words = line.split("   ")[0].strip() if "   " in line.strip() else line.strip()
            cli.make_parser().parse_args(words.split()[1:])  # which exits where it does not understand


def test_the_help_says_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "exit status: 0 done, 1 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["clsuter", "photos"], "there is no command 'clsuter'. Did you mean cluster? See labkit --help"),
        (["Cluster", "photos"], "Did you mean cluster?"),
        (["qqqq"], "there is no command 'qqqq'. Expected one of cluster, "),
        (["cluster", "photos", "--clases", "3"], "--clases is no option here. Did you mean --classes? See labkit clus"),
        (["cluster", "photos", "--clases=3"], "--clases is no option here. Did you mean --classes?"),
        (["cluster", "photos", "-classes", "3"], "-classes is no option here. Did you mean --classes?"),
        (["cluster", "photos", "--CLASSES", "3"], "--CLASSES is no option here. Did you mean --classes?"),
        (["cluster", "--bakbone", "hog", "photos"], "--bakbone is no option here. Did you mean --backbone?"),
        (
            ["datasets", "exprt", "digits"],
            "there is no command 'exprt'. Did you mean export? See labkit datasets --help",
        ),
        (["datasets", "export", "digits", "--tu", "x"], "--tu is no option here. Did you mean --to?"),
        (["must", "photos", "--qqqq"], "--qqqq is no option here. See labkit must --help"),
        (["--versoin"], "--versoin is no option here. Did you mean --version?"),
        ([], "a command is missing. Expected one of cluster, "),
        (["must"], "missing: data. See labkit must --help"),
        (["cluster", "photos", "--classes"], "--classes: expected one argument"),
        (["cluster", "photos", "--backbone", ","], "--backbone: it is empty"),
        (["must", "photos", "--words", "a,b", "--initial-labels", "turtel"], "invalid choice: 'turtel' (choose from"),
    ],
)
def test_typos_are_one_line_that_helps(typed: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(typed) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("labkit: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_what_is_no_typo_is_left_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    parse = cli.make_parser().parse_args
    assert (
        parse(
            [
                "must",
                "digits",
                "--",
            ]
        ).data
        == "digits"
    )
    assert parse(["must", "--", "--odd"]).data == "--odd"
    assert parse(["must", "x", "--ep", "3"]).epochs == 3  # argparse knows beginnings
    assert parse(["must", "x", "--words=--a,b"]).words == "--a,b"
    assert cli.main(["must", "x", "--seed", "-1"]) == 2
    assert "'-1' is not a whole number from 0" in capsys.readouterr().err


def test_commas_repeat() -> None:
    parse = cli.make_parser().parse_args
    assert parse(["cluster", "x", "--backbone", "hog,pixels"]).backbone == ["hog", "pixels"]
    assert parse(["cluster", "x", "--backbone", "hog, pixels,", "--backbone", "a"]).backbone == ["hog", "pixels", "a"]
    assert parse(["cluster", "x"]).backbone is None
    assert parse(["must", "x", "--space", "hog,pixels"]).space == ["hog", "pixels"]
    assert parse(["run", "--only", "02,03", "05"]).only == ["02", "03", "05"]
    assert parse(["run"]).only == []


# ------------------------------------------------------------------------------------------------------------- warnings


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def act(arguments: object) -> int:
        with warnings.catch_warnings():  # as outside of tests, where warnings are no errors
            warnings.simplefilter("default")
            warnings.warn("the labeling\ncollapsed", CollapseWarning, stacklevel=1)
            warnings.warn_explicit("old driver", UserWarning, "/lib/site-packages/torch/cuda.py", 3)
            warnings.warn_explicit("odd", UserWarning, "/somewhere/else.py", 3)
        logging.getLogger("labkit.data.folders").warning("left out: %s", "a\x1b[31m.png")
        logging.getLogger("labkit.data.folders").info("not this")
        logging.getLogger("open_clip").warning("x" * 1000)
        logging.warning("of the root")  # as libraries do
        return 0

    monkeypatch.setattr("labkit.cli.datasets.run", act)
    handlers = list(logging.getLogger().handlers)
    assert cli.main(["datasets"]) == 0
    assert logging.getLogger().handlers == handlers
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "labkit: the labeling collapsed",
        "torch warns: old driver",
        "Python warns: odd",
        "labkit: left out: a\\x1b[31m.png",
    ]
    assert lines[4].startswith("open_clip warns: xxx")
    assert len(lines[4]) < 330
    assert lines[5] == "Python warns: of the root"
    assert len(lines) == 6


# ------------------------------------------------------------------------------------------------------------------ hub


@pytest.mark.parametrize("listens", [True, False])
def test_a_hub_out_of_reach_is_said_soon(listens: bool, tmp_path: Path) -> None:
    """As a user meets it: the whole command, with the time that Python takes to load its libraries set aside."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16), (60 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    code = (
        "import sys, time\n"
        "import torch, timm, open_clip, sklearn.cluster, scipy.optimize, pandas\n"
        "from labkit.cli import main\nimport labkit.own.self_train\n"
        "start = time.perf_counter()\n"
        "given = 'must photos --words a,b --backbone clip-vit-b16 --preset pets/ViT-B-16'\n"
        "status = main(given.split())\n"
        "print(time.perf_counter() - start)\nsys.exit(status)"
    )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        env |= {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
            "HF_HOME": str(tmp_path / "hub"),
            "PYTHONPATH": str(Path(cli.__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
        }
        env.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 2, done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith("labkit: ") and "warning" not in line]
    assert len(ours) == 1
    assert "not in the hub's cache on this machine and could not be downloaded" in ours[0]
    assert float(done.stdout.splitlines()[-1]) < 10  # 5 on a machine that does nothing else


def test_the_hub_is_asked_while_libraries_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("labkit.data.hub.ask_hub", lambda: asked.append(time.monotonic()))
    parse = cli.make_parser().parse_args
    for line, n in (
        ("cluster x --backbone hog,pixels", 0),
        ("cluster x --backbone hog,timm:resnet50", 1),
        ("must x", 1),
        ("must x --backbone clip-vit-b16", 2),
        ("must x --space dinov2-vit-b14", 3),
        ("datasets", 3),
    ):
        options.ask_hub_early(parse(line.split()))
        assert len(asked) == n, line
