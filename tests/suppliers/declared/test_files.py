"""A supplier's file is refused loudly: with the line, the path of the key, and a sentence; and nothing in it can run or grow."""

from pathlib import Path

import pytest

from kameng_api.suppliers import registry
from kameng_api.suppliers.adapters.declared.compiled import Compiled, compile_text
from kameng_api.suppliers.adapters.declared.loading import SHIPPED
from kameng_api.suppliers.adapters.declared.yaml_text import FileWrong, read_text

GOOD = """\
name: shop
title: 商店
source: a document
dated: 2026-11
settings:
  app: {label: App}
  key: {label: Key, secret: true}
limits: {product_types: [topup]}
place:
  path: /buy
  fields:
    no: "{reference}"
    price: "{max_cost:yuan2}"
  answer:
    code: code
    codes:
      "0": accepted
look_up:
  path: /find
  fields: {no: "{reference}"}
  answer:
    code: code
    codes: {"0": state}
    state: state
    states:
      done: delivered
    one_unit: true
callback:
  encoding: form
  signature:
    text: [{fields: {order: sorted}}, {text: "{settings.key}"}]
    digest: md5
    at: {field: sign}
  reference: no
  state: state
  states: {done: delivered}
  one_unit: true
  reply: {text: ok}
"""


def compiled(text: str) -> Compiled:
    return compile_text(text.encode(), Path("shop.yaml"))


def problems(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(FileWrong) as caught:
        compiled(text)
    return [(one.line, ".".join(str(step) for step in one.path), one.said) for one in caught.value.problems]


def test_the_good_file_is_good_and_says_what_to_mind() -> None:
    found = compiled(GOOD)
    assert found.capabilities.callback and found.capabilities.query_by_reference and not found.capabilities.trusted_callback
    assert any("not compared with our reference" in one for one in found.warnings)


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_files_say_what_is_not_verified(file: Path) -> None:
    found = compile_text(file.read_bytes(), file)
    assert found.form.not_verified
    assert "## Not verified" in (found.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "said"),
    [
        ("title: 商店", "titel: 商店", 2, "titel", "no such word"),
        ("title: 商店\n", "", 1, "title", "is missing"),
        ("name: shop", "name: other", 1, "name", "the file is called 'shop'"),
        ("  path: /buy", "  method: GET\n  path: /buy", 10, "place.method", "encoding is query"),
        ("path: /buy", "path: buy", 10, "place.path", "begins with /"),
        ("{max_cost:yuan2}", "{max_cost}", 13, "place.fields.price", "needs a format"),
        ("{max_cost:yuan2}", "{max_cost:dollars}", 13, "place.fields.price", "no amount format"),
        ("{max_cost:yuan2}", "{wallet}", 13, "place.fields.price", "no value 'wallet'"),
        ("{max_cost:yuan2}", "{settings.secret}", 13, "place.fields.price", "no setting 'secret'"),
        ("{max_cost:yuan2}", "{now:HH o'clock}", 13, "place.fields.price", "no time format"),
        ("{max_cost:yuan2}", "{now:unix_s", 13, "place.fields.price", "single brace"),
        ('"0": accepted', '"0": fine', 17, "place.answer.codes.0", "Input should be"),
        ('"0": accepted', '"0": not_found', 17, "place.answer.codes.0", "nothing that a code of place can mean"),
        ('"0": accepted', '"*": accepted', 17, "place.answer.codes.*", "every code that is not listed is Unknown"),
        ('"0": accepted', "default: accepted", 17, "place.answer.codes.default", "every code that is not listed is Unknown"),
        ('"0": accepted', '"9": refused', 17, "place.answer.codes.9", "has a scope"),
        ('"0": accepted', '"9": {verdict: refused, scope: channel, reason: mood}', 17, "place.answer.codes.9", "no reason 'mood'"),
        ('"0": accepted', '"9": busy', 17, "place.answer.codes.9", "name the HTTP status"),
        ('"0": accepted', '"0": delivered', 14, "place.answer", "`units` are read"),
        ("    state: state\n    states:\n      done: delivered\n", "", 21, "look_up.answer", "no `state` is read"),
        ("      done: delivered\n", "      done: busy\n", 26, "look_up.answer.states.done", "nothing that a state"),
        ("reference: no", "reference: 'no['", 34, "callback.reference", "not a JMESPath expression"),
        ("reference: no", "reference: '[no, no]'", 34, "callback.reference", "only picks"),
        ("reference: no", "reference: 'sort_by(a, &b)'", 34, "callback.reference", "no function 'sort_by'"),
        ("reference: no", "reference: 'max(a)'", 34, "callback.reference", "no function 'max'"),
        ("reference: no", "reference: sign.x", 34, "callback.reference", "not in the signed text"),
        ("order: sorted", "order: [no]", 36, "callback.state", "not in the signed text"),
        ("  one_unit: true\n  reply", "  one_unit: true\n  trusted: true\n  reply", 38, "callback.trusted", "old callback can be sent again"),
        ("order: sorted", "order: sorted, pair: kv, join: ''", 38, "callback.trusted", "only be a hint"),
        ('{text: "{settings.key}"}', '{text: "{settings.app}"}', 30, "callback.signature", "no secret"),
        ("secret: true", "secret: true, default: x", 7, "settings.key", "no default"),
        ("secret: true", "secret: false", 5, "settings", "no setting is secret"),
        ("  app: {label: App}", "  base_url: {label: App}", 6, "settings.base_url", "has it already"),
        ('no: "{reference}"\n    price', "price", 9, "place", "our reference is not sent"),
        ("product_types: [topup]", "product_types: [topup], max_units: 3", 19, "look_up", "max_units: 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, line: int, path: str, said: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if "kv" in new:  # only where it is believed
        text = text.replace("  one_unit: true\n  reply", "  one_unit: true\n  trusted: true\n  reply")
    found = problems(text)
    assert any(path == where and said in why for _, where, why in found), found
    assert any(abs(at - line) <= 1 for at, where, _ in found if where == path), found


def test_every_problem_is_told_at_once() -> None:
    text = GOOD.replace("path: /buy", "path: buy").replace("{max_cost:yuan2}", "{max_cost}").replace("reference: no", "reference: 'no['")
    assert [where for _, where, _ in problems(text)] == ["place.path", "place.fields.price", "callback.reference"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "second time"),
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("a: !!python/object/apply:os.system [id]\n", "tags"),
        ("a: !include /etc/passwd\n", "tags"),
        ("a: " + "[" * 30 + "]" * 30, "deeper"),
        ("a: [" + "1," * 30_000 + "1]", "parts"),
        ("[1]", "not a mapping"),
        ("a: 'open", "not YAML"),
        ("", "not a mapping"),
        ("? [a]\n: 1\n", "a name is not text"),
    ],
)
def test_what_could_run_repeat_or_grow_is_refused(text: str, said: str) -> None:
    with pytest.raises(FileWrong, match=said):
        read_text(text.encode(), "x.yaml")
    with pytest.raises(FileWrong, match="bytes"):
        read_text(b"a: " + b"x" * 300_000, "x.yaml")
    with pytest.raises(FileWrong, match="UTF-8"):
        read_text(b"a: \xff", "x.yaml")


def test_plain_words_are_text_and_nothing_else() -> None:
    content = read_text(b"a: yes\nb: NO\nc: 012\nd: 1.0\ne: 12\nf: true\ng: ~\n1000: x\nh: 2026-11-23\n", "x.yaml").content
    assert content == {"a": "yes", "b": "NO", "c": "012", "d": "1.0", "e": 12, "f": True, "g": None, "1000": "x", "h": "2026-11-23"}


# ---- the registry --------------------------------------------------------------------------------------------------------


def test_an_operators_own_folder_joins_the_registry(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(GOOD, encoding="utf-8")
    found = registry.load_adapters(tmp_path)
    assert found["shop"].title == "商店" and found["shop"].folder == tmp_path / "shop"
    assert list(found) == sorted(found) and {"mishi", "chengquan", "youka", "simulator"} <= found.keys()
    assert "shop" not in registry.load_adapters()
    schema = found["shop"].settings.model_json_schema()
    assert schema["properties"]["key"]["format"] == "password" and schema["required"] == ["base_url", "app", "key"]


def test_a_broken_file_or_a_taken_name_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(GOOD.replace("path: /buy", "path: buy"), encoding="utf-8")
    with pytest.raises(registry.AdapterBroken, match=r"shop\.yaml:\n  line 10: place\.path: a path begins"):
        registry.load_adapters(tmp_path)
    (tmp_path / "shop.yaml").unlink()
    (tmp_path / "simulator.yaml").write_text(GOOD.replace("name: shop", "name: simulator"), encoding="utf-8")
    with pytest.raises(registry.AdapterBroken, match="of this name already"):
        registry.load_adapters(tmp_path)
    with pytest.raises(registry.AdapterBroken, match="not a folder"):
        registry.load_adapters(tmp_path / "nowhere")


def test_the_folder_of_this_process_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(GOOD, encoding="utf-8")
    registry.use_files(tmp_path)
    try:
        assert registry.get_adapter("shop").name == "shop"
    finally:
        registry.use_files(None)
    with pytest.raises(registry.AdapterNotFound):
        registry.get_adapter("shop")
