"""For mkdocs: a page's link to a file outside docs/ becomes that file's path, as the site does not hold the repository.

A picture outside docs/, a figure of a stored run, is put into the site under its path. In the repository links and
pictures stay what they are. One that leads nowhere is a warning, which ends a strict build. The notebook becomes a page
of its cells and the outputs kept in it; the gallery is a page made of scripts/docs_gallery.py.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import docs_gallery

LOG = logging.getLogger("mkdocs.hooks")  # mkdocs counts the warnings of its own loggers
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s#]+)(?:#[^)\s]*)?\)")
PICTURE = re.compile(r"(!\[[^\]]*\])\(\.\./([^)\s]+\.(?:png|svg|jpg))\)")
NOTEBOOK = "notebook.ipynb"


def on_files(files: Any, config: Any, **others: Any) -> Any:
    """The site's files with the notebook and the pictures outside docs/ that pages show; a missing one warns."""
    docs = Path(config["docs_dir"])
    written, gallery = [page.read_text("utf-8") for page in sorted(docs.glob("*.md"))], docs_gallery.page()
    shown = {path for text in (*written, gallery) for _, path in PICTURE.findall(text)}
    for path in sorted(shown):
        if (docs.parent / path).is_file():
            files.append(File.generated(config, path, abs_src_path=str(docs.parent / path)))
    files.append(File.generated(config, "gallery.md", content=gallery))
    text, pictures = pages_of(json.loads((docs / NOTEBOOK).read_text("utf-8")))
    files.append(File.generated(config, Path(NOTEBOOK).with_suffix(".md").name, content=text))
    for name, picture in pictures.items():
        files.append(File.generated(config, name, content=picture))
    return files


def pages_of(notebook: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown and the pictures it shows: of each output the picture, the table, or else the text."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"notebook-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell above draws]({name})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            else:
                parts.append("```text\n" + "".join(data["text/plain"]).rstrip() + "\n```")
    return "\n\n".join(parts) + "\n", pictures


def on_page_markdown(markdown: str, page: Any, config: Any, **others: Any) -> str:
    """The page's text with links that leave docs/ as paths from the repository's root."""
    root = Path(config["docs_dir"]).parent

    def path_of(found: re.Match[str]) -> str:
        text, link = found.groups()
        target = (root / "docs" / link).resolve()
        if not target.exists() or root.resolve() not in target.parents:
            LOG.warning("%s: the link to %s leads nowhere", page.file.src_path, link)
            return text
        path = str(target.relative_to(root.resolve()))
        told = text.strip("`")
        named = told.endswith(Path(path).name) or told == Path(path).stem or path.startswith(told)
        return f"`{path}`" if named else f"{text} (`{path}`)"

    inside = markdown.replace(f"]({NOTEBOOK})", f"]({Path(NOTEBOOK).with_suffix('.md')})")
    return PICTURE.sub(r"\1(\2)", OUTSIDE.sub(path_of, inside))
