"""What the site adds to docs/: the README as its first page, and the files of the repository that pages link to.

MkDocs calls the functions here (`hooks` in mkdocs.yml). A page links to a file outside docs/ as GitHub has it, such as
`../examples/demo.yaml`; the site holds a copy of it, so that no link needs a network.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
COPIES = "repository/"  # where the site has the files of the repository
SHOWN = {".py": "python", ".yaml": "yaml", ".md": "markdown"}  # as pages; files of other kinds are copied as they are
LINK = re.compile(r'(?<=\]\()(?!https?:|#)[^)\s#]+|(?<=src=")[^"]+|(?<=srcset=")[^"]+')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, and every file that a page links to and docs/ doesn't hold."""
    readme = re.sub(LINK, lambda link: from_docs(link[0]), (ROOT / "README.md").read_text(encoding="utf-8"))
    files.append(File.generated(config, "index.md", content=readme))
    for file in list(files.documentation_pages()):
        for link in re.findall(LINK, file.content_string):
            if path := outside(link):
                name = copy_of(path)
                if files.get_file_from_path(name) is None:
                    files.append(copied(config, path, name))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside docs/ lead to their copies."""
    if page.file.src_uri.startswith(COPIES):
        return markdown
    return re.sub(LINK, lambda link: copy_of(path) if (path := outside(link[0])) else link[0], markdown)


def from_docs(link: str) -> str:
    """A link of the README, as a page in docs/ would write it."""
    return link.removeprefix("docs/") if link.startswith("docs/") else f"../{link}"


def outside(link: str) -> Path | None:
    """The file of the repository that a link leads to, from its root; None for one in docs/."""
    return Path(link.removeprefix("../")) if link.startswith("../") else None


def copy_of(path: Path) -> str:
    """The name of a file's copy in the site."""
    return f"{COPIES}{path}.md" if path.suffix in SHOWN else f"{COPIES}{path}"


def copied(config: MkDocsConfig, path: Path, name: str) -> File:
    """The copy of a file: a page with its text, or the file itself. A file that isn't there ends the build."""
    if path.suffix not in SHOWN:
        return File.generated(config, name, content=(ROOT / path).read_bytes())
    text = (ROOT / path).read_text(encoding="utf-8")
    head = f"---\ntitle: {path}\nsearch: {{exclude: true}}\n---\n# {path}\n\n"
    return File.generated(config, name, content=f"{head}````{SHOWN[path.suffix]}\n{text}````\n")
