"""`labkit zeroshot`: the nearest of some words for each image of a folder."""

from __future__ import annotations

import argparse

from labkit.cli import options
from labkit.cli.left_out import left_out_lines
from labkit.cli.parser import examples
from labkit.errors import printable, shown


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "zeroshot",
        help="the nearest of your words for each image of a folder",
        description="Give each image of a folder the word that an image-text model finds most similar to it. The "
        "bundled model knows photographs little: clip-vit-b32 knows them well (350 MB from the hub, once).",
        epilog=examples(
            "labkit zeroshot photos --words cat,dog,horse",
            "labkit zeroshot photos --words words.txt --backbone clip-vit-b32 --out labels.csv",
        ),
    )
    parser.add_argument("folder", type=options.path, help="images, at any depth")
    parser.add_argument(
        "--words", required=True, metavar="WORDS", help="a,comma,list or a file with a word a line; at least two"
    )
    parser.add_argument(
        "--backbone", default="pocket-clip", metavar="NAME", help="image-text model (default: %(default)s)"
    )
    parser.add_argument(
        "--out", default="labels.csv", type=options.path, metavar="FILE", help="CSV to write (default: %(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="stop where an image cannot be read")
    parser.set_defaults(run=run, when_stopped="What was read is kept: the same command is quicker now.")


def run(arguments: argparse.Namespace) -> int:
    """Name the images, and say how many each word has."""
    options.expect_folder(arguments.folder)
    words, file = options.given_words(arguments.words, 2)
    from labkit.own.zero_shot import BUNDLED, LARGER, name_folder

    named = name_folder(
        arguments.folder,
        words or [],
        arguments.out,
        backbone=arguments.backbone,
        words_file=file,
        strict=arguments.strict,
        progress=True,
    )
    left_out = {named.reading.below(path): why for path, why in named.reading.left_out.items()}
    for line in left_out_lines(left_out, named.reading.others):
        print(line)
    for word, count in named.counts():
        print(printable(f"{word}: {count:,} {'image' if count == 1 else 'images'}"))
    if arguments.backbone == BUNDLED:
        print(f"{BUNDLED} was trained on icons and knows photographs little: where these are photographs, many of the")
        print(f"names are wrong. --backbone {LARGER} knows them (350 MB from the hub, once).")
    print(printable(f"See {shown(arguments.out)}"))
    return 0
