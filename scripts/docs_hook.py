"""For mkdocs: a page's link to a file outside docs/ becomes that file's path, as the site does not hold the repository.

In the repository those links stay links. One that leads nowhere is a warning, which ends a strict build.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

LOG = logging.getLogger("mkdocs.hooks")  # mkdocs counts the warnings of its own loggers
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s#]+)(?:#[^)\s]*)?\)")


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
        return f"`{path}`" if text.strip("`").endswith(Path(path).name) else f"{text} (`{path}`)"

    return OUTSIDE.sub(path_of, markdown)
