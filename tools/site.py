"""What the documentation links to outside of docs/ is named in the site, not linked.

A hook of MkDocs (mkdocs.yml). In the repository these links work; a site has no such files.
"""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s:]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """The page, with links that leave docs/ or lead to what is no page as plain names."""
    folder = posixpath.dirname(page.file.src_uri)

    def shown(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[2]))
        known = files.get_file_from_path(target)
        return found[0] if known is not None else found[1]

    return _LINK.sub(shown, markdown)
