"""Makes `kameng/_sync` from `kameng/_async`, so that the two clients cannot differ: python sdk/python/tools/unasync.py"""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "src" / "kameng"
WORDS = {
    "AsyncIterator": "Iterator",
    "asyncio.sleep": "time.sleep",
    "httpx.AsyncClient": "httpx.Client",
    "httpx.AsyncBaseTransport": "httpx.BaseTransport",
    "aiter_bytes": "iter_bytes",
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "_async": "_sync",
    "for asyncio": "that blocks",
}
_PATTERN = re.compile(
    r"\bimport asyncio\b|\basync (?=def|for|with)|\bawait |Awaitable\[(?P<inner>Page\[T\])\]|\bAwaitable, "
    r"|\bAsync(?=[A-Z])(?!Iterator|Client\(\n)|" + "|".join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True))
)


def unasync(text: str) -> str:
    """One module, blocking."""
    made = _PATTERN.sub(_replace, text)
    lines = made.split("\n")
    imports = [n for n, line in enumerate(lines) if line == "import time"]
    for extra in imports[1:]:
        lines[extra] = "\0"
    if imports:  # where isort wants it
        first, end = imports[0], imports[0]
        while lines[end + 1].startswith(("import ", "\0")):
            end += 1
        block = sorted(line for line in lines[first : end + 1] if line != "\0")
        lines[first : end + 1] = block
    return "\n".join(line for line in lines if line != "\0")


def _replace(found: "re.Match[str]") -> str:
    word = found.group()
    if word == "import asyncio":
        return "import time"
    if found.group("inner"):
        return found.group("inner")
    return WORDS.get(word, "")


def made() -> dict[Path, str]:
    """What should stand in `_sync`, by file."""
    return {HERE / "_sync" / path.name: unasync(path.read_text(encoding="utf-8")) for path in sorted((HERE / "_async").glob("*.py"))}


if __name__ == "__main__":
    (HERE / "_sync").mkdir(exist_ok=True)
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
