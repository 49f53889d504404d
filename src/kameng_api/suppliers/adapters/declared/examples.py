"""A file's own examples, read once more: does each still mean what it says?"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from kameng_api.suppliers.adapters.declared.client import DeclaredSupplier
from kameng_api.suppliers.adapters.declared.compiled import Compiled
from kameng_api.suppliers.adapters.declared.dry_run import Question, Stage, ask
from kameng_api.suppliers.port import Answer, CallbackNews, CallbackRefused, HttpAnswer, Purchase

_JUDGED = ("place", "look_up", "cancel", "callback")


async def judge_examples(compiled: Compiled) -> list[str]:
    """What is missing beside the file, and every example that means something else than it says: a sentence each. For the command line."""
    folder = compiled.folder.name
    texts, readme = _beside(compiled.folder)
    found = [] if readme else [f"{folder}/README.md is missing: source, quirks, what is not verified"]
    if not texts:
        found.append(f"{folder}/examples is empty: `kameng supplier record` keeps real answers there")
    for name, text in texts:
        said = await _judge(compiled, text)
        if said:
            found.append(f"examples/{name}: {said}")
    return found


def _beside(folder: Path) -> tuple[list[tuple[str, bytes]], bool]:
    """The examples by name, and whether there is a README."""
    return [(file.name, file.read_bytes()) for file in sorted((folder / "examples").glob("*.json"))], (folder / "README.md").is_file()


async def _judge(compiled: Compiled, text: bytes) -> str:
    try:
        example = json.loads(text)
        if example["call"] not in _JUDGED:
            return ""
        means, expected = await _outcome(compiled, example), example["expect"].get("outcome")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"cannot be read: {type(error).__name__}"
    return "" if expected in (None, means) else f"says {expected} and means {means}"


async def _outcome(compiled: Compiled, example: dict[str, Any]) -> str:
    """The name of the outcome that the example's answer or callback has."""
    settings = compiled.settings(**example["settings"])
    charset = example.get("charset", "utf-8")
    if example["call"] == "callback":
        supplier = DeclaredSupplier(compiled, settings, Stage())
        if supplier.read_callback is None:
            return "nothing: the file describes no callback"
        try:
            news = supplier.read_callback(example["headers"], example["body"].encode(charset), datetime.fromisoformat(example["now"]))
        except CallbackRefused as refused:
            return f"a refused callback ({refused})"
        return type(news.outcome).__name__ if isinstance(news, CallbackNews) else type(news).__name__
    given = example["answer"]
    stage = Stage(HttpAnswer(given["status"], given["headers"], given["body"].encode(charset)))
    purchase = Purchase(**example["purchase"]) if "purchase" in example else None
    question = Question(example["call"], purchase, example.get("reference", ""), example.get("supplier_order_no"))
    said = await ask(DeclaredSupplier(compiled, settings, stage), question)
    return type(said.outcome).__name__ if isinstance(said, Answer) else type(said).__name__
