"""Lets the site begin with the README and end with the changes, which stand at the top of the repository: told once,
shown twice.

MkDocs calls these functions (mkdocs.yml names this file under hooks).
"""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from the top of the repository, their links as seen from docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text("utf-8").replace("](docs/", "](")
        for other, address in PAGES.items():
            text = text.replace(f"]({other}", f"]({address}")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links from docs/ to those pages."""
    for source, page in PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}")
    return markdown
