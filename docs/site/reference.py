"""Turns the OpenAPI document into pages for people, in English and Chinese: nothing about an endpoint or an event is written twice."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

Node = Mapping[str, Any]
METHODS: Final = ("get", "post", "put", "patch", "delete")
_USUAL: Final = ("400", "401", "403", "429", "503", "default")
_SCOPE: Final = re.compile(r"\n*(?:Scope `([a-z:]+)`\.|No scope needed\.)(?: Test keys only: for a live key it does not exist\.)?\s*$")
_TEST_ONLY: Final = "Test keys only"
_DEPTH: Final = 4
_KNOWN: Final = {
    "currency": "CNY", "sku": "mobile-cn-100", "target": "13800138000", "merchant_order_no": "PO-20261122-0001", "merchant_batch_no": "B-20261122-01",
    "order_id": "ord_01JD0000000000000000000009", "event_id": "evt_01JD0000000000000000000042", "timezone": "Asia/Shanghai", "stock": "in_stock",
    "environment": "test",
}  # fmt: skip

EN: Final = {
    "title": "API reference", "events": "Events, with examples", "parameters": "Parameters", "body": "Body", "answer": "Answer", "errors": "Errors",
    "example": "Example", "name": "name", "where": "in", "type": "type", "meaning": "meaning", "required": "required", "scope": "Signed, scope",
    "no_scope": "Signed, no scope needed", "unsigned": "Not signed", "class": "rate class", "test_only": "test keys only",
    "all": "what every signed request may meet", "status": "status", "codes": "codes", "endpoint": "endpoint", "does": "does",
    "about": "Made from `openapi/kameng.v1.yaml` when the site is built. How to sign: [Signing](../signing.md). What each code asks of you: "
    "[Errors](../errors.md).",
    "about_events": "The body of each event as it is sent. How to verify and answer: [Webhooks and events](../webhooks.md). Members may be added.",
    "content": "content",
}  # fmt: skip
ZH: Final = {
    "title": "接口参考", "events": "事件与示例", "parameters": "参数", "body": "请求体", "answer": "应答", "errors": "错误",
    "example": "示例", "name": "名称", "where": "位置", "type": "类型", "meaning": "含义", "required": "必填", "scope": "需签名，权限",
    "no_scope": "需签名，不需要权限", "unsigned": "不签名", "class": "限流类别", "test_only": "仅限测试密钥",
    "all": "所有签名请求都可能遇到的错误", "status": "状态码", "codes": "错误码", "endpoint": "接口", "does": "作用",
    "about": "构建站点时由 `openapi/kameng.v1.yaml` 生成，"
    "字段说明保留原文。如何签名见[签名](../signing.md)，每个错误码如何处理见[错误](../errors.md)。",
    "about_events": "每种事件发出时的内容。如何验签与应答见[回调与事件](../webhooks.md)。以后可能增加字段。",
    "content": "内容",
}  # fmt: skip


def pages(document: Path, folder: Path) -> dict[str, str]:
    """Path below the site's root → Markdown: an index, a page per tag, the events; each in both languages.

    `folder` holds `words.zh-CN.yaml` (Chinese titles), `errors.yaml` (which refusals are an operation's own) and `examples.json` (a
    body per event, and of schemas whose fields say little alone).
    """
    api = yaml.safe_load(document.read_text(encoding="utf-8"))
    chinese = yaml.safe_load((folder / "words.zh-CN.yaml").read_text(encoding="utf-8"))
    own_errors = yaml.safe_load((folder / "errors.yaml").read_text(encoding="utf-8"))
    examples = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    for name, example in examples["schemas"].items():
        api["components"]["schemas"][name]["examples"] = [example]
    made: dict[str, str] = {}
    for suffix, words, titles in ((".md", EN, {}), (".zh-CN.md", ZH, chinese)):
        groups = grouped(api)
        made[f"reference/index{suffix}"] = _index(groups, own_errors["every"], words, titles)
        made[f"reference/event-bodies{suffix}"] = _events(api, examples["events"], words, titles)
        for tag, operations in groups.items():
            parts = [f"# {titles.get(tag, tag.capitalize())}", words["about"]]
            parts += [_operation(api, path, method, op, own_errors, words, titles) for path, method, op in operations]
            made[f"reference/{slug(tag)}{suffix}"] = "\n\n".join(parts) + "\n"
    return made


def slug(tag: str) -> str:
    return tag.replace(" ", "-")


def grouped(api: Node) -> dict[str, list[tuple[str, str, Node]]]:
    """Tag → its operations, in the document's order."""
    groups: dict[str, list[tuple[str, str, Node]]] = {}
    for path, operations in api["paths"].items():
        for method in METHODS:
            if method in operations:
                groups.setdefault((operations[method].get("tags") or ["other"])[0], []).append((path, method.upper(), operations[method]))
    return groups


def _index(groups: dict[str, list[tuple[str, str, Node]]], every: Mapping[str, list[str]], words: Mapping[str, str], titles: Node) -> str:
    parts = [f"# {words['title']}", words["about"]]
    for tag, operations in groups.items():
        rows = [f"| [`{m} {p}`]({slug(tag)}.md#{op['operationId']}) | {_summary(op, titles)} |" for p, m, op in operations]
        parts.append(f"## {titles.get(tag, tag.capitalize())}\n\n| {words['endpoint']} | {words['does']} |\n| --- | --- |\n" + "\n".join(rows))
    rows = [f"| {status} | {' '.join(_code(c, '../errors.md') for c in codes)} |" for status, codes in every.items()]
    parts.append(f"## {words['errors']}: {words['all']} {{#every}}\n\n| {words['status']} | {words['codes']} |\n| --- | --- |\n" + "\n".join(rows))
    parts.append(f"[{words['events']}](event-bodies.md)")
    return "\n\n".join(parts) + "\n"


def _events(api: Node, examples: Node, words: Mapping[str, str], titles: Node) -> str:
    parts = [f"# {words['events']}", words["about_events"]]
    for name in api["webhooks"]:
        parts.append(f"## `{name}` {{#{name.replace('.', '-')}}}")
        if name in titles:
            parts.append(titles[name])
        if name in examples:
            parts.append(_json(examples[name]))
    return "\n\n".join(parts) + "\n"


def _operation(api: Node, path: str, method: str, op: Node, own_errors: Node, words: Mapping[str, str], titles: Node) -> str:
    described = op.get("description", "")
    scope = _SCOPE.search(described)
    signed = bool(op.get("security"))
    says = words["unsigned"] if not signed else f"{words['scope']} `{scope.group(1)}`" if scope and scope.group(1) else words["no_scope"]
    if "x-rate-class" in op:
        says += f" · {words['class']} `{op['x-rate-class']}`"
    if _TEST_ONLY in described:
        says += f" · {words['test_only']}"
    parts = [f"## `{method} {path}` {{#{op['operationId']}}}", f"**{_summary(op, titles)}** — {says}", _SCOPE.sub("", described)]
    parts += _parameters(api, op, words)
    content = op.get("requestBody", {}).get("content", {})
    for media, shape in content.items():
        parts.append(f"**{words['body']}** `{media}`")
        schema = shape.get("schema", {})
        parts.append(_fields(api, schema, words))
        if media == "application/json":
            parts.append(f"{words['example']}:\n\n" + _json(sample(api, schema)))
    parts += _answers(api, op, words)
    parts.append(_errors(path, op, own_errors, words, has_body=bool(content)))
    return "\n\n".join(part for part in parts if part.strip())


def _summary(op: Node, titles: Node) -> str:
    return str(titles.get(op["operationId"], op.get("summary", op["operationId"])))


def _parameters(api: Node, op: Node, words: Mapping[str, str]) -> list[str]:
    rows = []
    for one in (resolved(api, told) for told in op.get("parameters", [])):
        needed = f" · {words['required']}" if one.get("required") else ""
        schema = resolved(api, one.get("schema", {}))
        text = one.get("description") or schema.get("description", "")
        rows.append(f"| `{one['name']}` | {one['in']} | {kind(api, schema)}{needed} | {_cell(text)} |")
    if not rows:
        return []
    head = (
        f"**{words['parameters']}**\n\n| {words['name']} | {words['where']} | {words['type']} | {words['meaning']} |\n| --- | --- | --- | --- |\n"
    )
    return [head + "\n".join(rows)]


def _fields(api: Node, schema: Node, words: Mapping[str, str]) -> str:
    schema = resolved(api, schema)
    needed = set(schema.get("required", []))
    rows = []
    for name, field in schema.get("properties", {}).items():
        whole = resolved(api, field)
        mark = f" · {words['required']}" if name in needed else ""
        rows.append(f"| `{name}` | {kind(api, field)}{mark} | {_cell(field.get('description') or whole.get('description', ''))} |")
    if not rows:
        return ""
    return f"| {words['name']} | {words['type']} | {words['meaning']} |\n| --- | --- | --- |\n" + "\n".join(rows)


def _answers(api: Node, op: Node, words: Mapping[str, str]) -> list[str]:
    parts = []
    for status, answer in op.get("responses", {}).items():
        if status in _USUAL:
            continue
        content = resolved(api, answer).get("content", {})
        parts.append(f"**{words['answer']} {status}**" + "".join(f" `{media}`" for media in content))
        schema = content.get("application/json", {}).get("schema")
        if schema and (status != "200" or "201" not in op["responses"]):  # a repetition answers the same object
            parts += [_fields(api, schema, words), _json(sample(api, schema))]
    return parts


def _errors(path: str, op: Node, own_errors: Node, words: Mapping[str, str], *, has_body: bool) -> str:
    codes = list(own_errors["operations"].get(op["operationId"], []))
    if "{" in path:
        codes.append("not_found")
    if has_body:
        codes += own_errors["body"]
    names = {one.get("name") for one in op.get("parameters", [])}
    if names & {"cursor", "after"}:
        codes.append("cursor_invalid")
    if op.get("parameters"):
        codes.append("validation_failed")
    own = " ".join(_code(code, "../errors.md") for code in dict.fromkeys(codes))
    common = f"[{words['all']}](index.md#every)" if op.get("security") else ""
    told = " · ".join(part for part in (own, common) if part)
    return f"**{words['errors']}**: {told}" if told else ""


def _code(code: str, page: str) -> str:
    return f"[`{code}`]({page}#codes)"


def resolved(api: Node, node: Node) -> Node:
    """The thing itself where a reference stands."""
    while "$ref" in node:
        found: Any = api
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def kind(api: Node, schema: Node) -> str:
    """A schema in a few words for a cell."""
    if "$ref" in schema:
        inner = resolved(api, schema)
        return kind(api, inner) if "enum" in inner else str(inner.get("title", schema["$ref"].rsplit("/", 1)[-1]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(api, one) for one in schema[several]))
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"array of {kind(api, schema.get('items', {}))}"
    told = str(schema.get("format") or schema.get("type", "any"))
    limits = [f"≥ {schema['minimum']:g}"] if "minimum" in schema else []
    limits += [f"≤ {schema['maximum']:g}"] if "maximum" in schema else []
    limits += [f"≤ {schema['maxLength']} chars"] if "maxLength" in schema else []
    limits += [f"default {json.dumps(schema['default'])}"] if "default" in schema else []
    return ", ".join([told, *limits])


def sample(api: Node, schema: Node, depth: int = 0, name: str = "") -> Any:
    """An example of a schema: its own where it has one, else one composed of its fields'; a field that says nothing is known by its name."""
    for told in ("examples", "example", "const", "default"):
        if schema.get(told) is not None:
            return schema[told][0] if told == "examples" else schema[told]
    schema = resolved(api, schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "string" and name in _KNOWN:
        return _KNOWN[name]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return sample(api, schema[several][0], depth, name)
    if schema.get("type") == "object" or "properties" in schema:
        return {key: sample(api, field, depth + 1, key) for key, field in schema.get("properties", {}).items()} if depth < _DEPTH else {}
    if schema.get("type") == "array":
        return [sample(api, schema.get("items", {}), depth + 1, name)] if depth < _DEPTH else []
    return _scalar(schema)


def _scalar(schema: Node) -> Any:
    if schema.get("format") == "date-time":
        return "2026-11-22T11:44:59.000Z"
    if schema.get("format") == "date":
        return "2026-11-21"
    known = {"string": "…", "integer": max(1, int(schema.get("minimum", 1))), "number": 1, "boolean": False, "null": None}
    return known.get(schema.get("type", ""), {})


def _json(value: Any) -> str:
    return "```json\n" + json.dumps(value, ensure_ascii=False, indent=1) + "\n```"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
