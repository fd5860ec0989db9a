"""The diagrams that stand in the notebooks: shown from the files that notebooks/figures/draw.py makes."""

from __future__ import annotations

import base64
import html
import xml.etree.ElementTree as ET

from labkit._files import shipped_dir
from labkit.errors import LabkitError, quote


def diagram(name: str) -> None:
    """Show a diagram, such as "turtle" or "map-04"; those who cannot see it get its title and its description.

    It adapts to light and dark pages by itself.

    Raises:
        LabkitError: there is no such diagram.
    """
    from IPython.display import display

    paths = {path.stem: path for path in sorted((shipped_dir("notebooks") / "figures").glob("*.svg"))}
    if not isinstance(name, str) or name not in paths:
        raise LabkitError(f"there is no diagram {quote(name)}. Expected one of: {', '.join(paths)}.")
    svg = paths[name].read_bytes()
    root = ET.fromstring(svg)
    alt = ". ".join(root.findtext(f"{{http://www.w3.org/2000/svg}}{tag}", "") for tag in ("title", "desc"))
    # An <img>, not image/svg+xml: JupyterLab gives the latter no alt text, and shows none in a notebook that it does
    # not trust yet, as every notebook is before its first run.
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    image = f'<img style="max-width: 100%" alt="{html.escape(alt)}" src="{source}">'
    display({"text/html": image, "text/plain": alt}, raw=True)
