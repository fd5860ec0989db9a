"""A manifest as Croissant 1.1, the description of datasets that hubs and search engines read (docs.mlcommons.org).

What a manifest says becomes metadata and two small tables inside the description: the classes and the splits. Files
that lie beside it (a table of the samples, features) are named with their digest, and their columns become fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import labkit
from labkit._files import file_sha256
from labkit.data.schema import Manifest

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
CONTEXT: dict[str, Any] = {  # the one that the specification prescribes, so that words need no prefix
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "conformsTo": "dct:conformsTo",
    **{
        word: f"cr:{word}"
        for word in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject"),
            *("fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
            *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
            *("separator", "source", "subField", "transform"),
        )
    },
}
PARQUET = "application/x-parquet"


@dataclass(frozen=True)
class Table:
    """A parquet file beside the description.

    Attributes:
        path: relative to the folder of the description.
        title: what a row is.
        columns: name of each column, its type in Croissant ("sc:Text", "sc:Integer", "cr:Float16", …) and a line.
        lengths: of columns whose cells are vectors.
        refers: columns that hold keys of another table: {"label": "classes/number"}.
    """

    path: Path
    title: str
    columns: Sequence[tuple[str, str, str]]
    lengths: dict[str, int] = field(default_factory=dict)
    refers: dict[str, str] = field(default_factory=dict)


def describe(manifest: Manifest, folder: Path | None = None, tables: Sequence[Table] = ()) -> dict[str, Any]:
    """Croissant of a dataset: the JSON-LD, as a dict.

    Args:
        manifest: what is known of it.
        folder: where the tables lie; their digests are taken.
        tables: parquet files that belong to it.
    """
    files = [] if folder is None else [_file(folder, table) for table in tables]
    records = [*_inline(manifest), *(_records(table) for table in tables)]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest.id,
        "description": f"{manifest.title}: {manifest.task}. Described by labkit {labkit.__version__}; the images are "
        "with their owner.",
        "license": manifest.license,
        "citeAs": manifest.citation,
        "url": manifest.homepage,
        "version": "1.0.0",
        "creator": {"@type": "sc:Organization", "name": manifest.citation.partition(":")[0] or "unknown"},
        "datePublished": _year(manifest.citation),
        "isLiveDataset": False,
        "distribution": files,
        "recordSet": records,
    }


def _year(citation: str) -> str:
    """The last year that a citation names; Croissant wants a date, and the first of January stands for "that year"."""
    years = [word for word in "".join(c if c.isdigit() else " " for c in citation).split() if len(word) == 4]
    years = [year for year in years if "1950" <= year <= "2099"]
    return f"{years[-1] if years else '1970'}-01-01"


def _inline(manifest: Manifest) -> list[dict[str, Any]]:
    """The classes and the splits, whose rows stand in the description itself."""
    splits = [
        {"splits/name": name, "splits/size": split.size, "splits/how": split.how}
        for name, split in manifest.splits.items()
    ]
    tables = [
        _record_set(
            "splits",
            "How many images each split has, and how it is made",
            [("name", "sc:Text", "its name"), ("size", "sc:Integer", "images"), ("how", "sc:Text", "how it is made")],
            key="splits/name",
            data=splits,
        )
    ]
    if manifest.classes:
        rows = [{"classes/number": i, "classes/name": name} for i, name in enumerate(manifest.classes)]
        columns = [("number", "sc:Integer", "class number, from 0"), ("name", "sc:Text", "name of the class")]
        tables.append(_record_set("classes", manifest.task, columns, key="classes/number", data=rows))
    return tables


def _record_set(
    name: str, description: str, columns: Sequence[tuple[str, str, str]], *, key: str, data: list[dict[str, Any]]
) -> dict[str, Any]:
    fields = [_field(name, *column) for column in columns]
    head = {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "key": {"@id": key}}
    return {**head, "field": fields, "data": data}


def _field(table: str, name: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{name}",
        "name": name,
        "description": description,
        "dataType": kind,
    }


def _name(table: Table) -> str:
    return table.path.with_suffix("").as_posix().replace("/", "-")


def _file(folder: Path, table: Table) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": table.path.as_posix(),
        "name": table.path.as_posix(),
        "description": table.title,
        "contentUrl": table.path.as_posix(),
        "encodingFormat": PARQUET,
        "contentSize": f"{(folder / table.path).stat().st_size} B",
        "sha256": file_sha256(folder / table.path),
    }


def _records(table: Table) -> dict[str, Any]:
    name, fields = _name(table), []
    for column in table.columns:
        of_file = {"fileObject": {"@id": table.path.as_posix()}, "extract": {"column": column[0]}}
        entry = {**_field(name, *column), "source": of_file}
        if column[0] in table.lengths:
            entry |= {"isArray": True, "arrayShape": str(table.lengths[column[0]])}
        if column[0] in table.refers:
            entry["references"] = {"field": {"@id": table.refers[column[0]]}}
        fields.append(entry)
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": table.title, "field": fields}
