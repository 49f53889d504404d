"""The form by which a channel is connected, drawn from the adapter's settings: what is asked, in which order, in both languages. Pure.

An adapter says what it wants in its settings model: `Field(title=…, description=…, json_schema_extra={"title_zh": …, "description_zh": …})`.
What it leaves unsaid is filled from the words below, so that the same thing has the same label at every supplier.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from kameng_api.suppliers.port import Adapter

_CHINESE: Final = re.compile(r"[\u4e00-\u9fff]")
_KINDS: Final = {"string": "text", "integer": "integer", "number": "number", "boolean": "switch"}


@dataclass(frozen=True, slots=True)
class Said:
    """A text in English and Chinese."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class FormField:
    """One question of the form. `kind`: text, secret, integer, number, switch, choice, or json for what has a shape of its own.

    `least`/`most`: of a number its value, of a text its length. A secret has no default and is never shown again.
    """

    name: str
    kind: str
    required: bool
    title: Said
    description: Said
    default: Any = None
    options: tuple[str, ...] = ()
    pattern: str | None = None
    least: float | None = None
    most: float | None = None


def form_of(adapter: Adapter) -> tuple[FormField, ...]:
    """The questions in the order of the model."""
    schema = adapter.settings.model_json_schema()
    required = set(schema.get("required", ()))
    return tuple(_field(adapter, name, told, name in required, schema.get("$defs", {})) for name, told in schema.get("properties", {}).items())


def secrets_of(adapter: Adapter) -> frozenset[str]:
    """The names of the settings that are secret."""
    return frozenset(one.name for one in form_of(adapter) if one.kind == "secret")


def _field(adapter: Adapter, name: str, told: Mapping[str, Any], required: bool, shapes: Mapping[str, Any]) -> FormField:
    shape = _plain(told, shapes)
    options = tuple(str(value) for value in shape.get("enum", ()) if value is not None)
    secret = shape.get("format") == "password" or adapter.settings.model_fields[name].annotation is SecretStr
    kind = "secret" if secret else "choice" if options else _KINDS.get(str(shape.get("type")), "json")
    text = kind in ("text", "secret")
    return FormField(
        name=name,
        kind=kind,
        required=required,
        title=_title(adapter, name, told),
        description=_description(name, told),
        default=None if secret else told.get("default"),
        options=options,
        pattern=shape.get("pattern"),
        least=shape.get("minLength") if text else shape.get("minimum", shape.get("exclusiveMinimum")),
        most=shape.get("maxLength") if text else shape.get("maximum", shape.get("exclusiveMaximum")),
    )


def _plain(told: Mapping[str, Any], shapes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The shape itself, behind a reference or beside a null."""
    for one in told.get("anyOf", ()):
        if one.get("type") != "null":
            return {**told, **_plain(one, shapes)}
    reference = str(told.get("$ref", "")).rsplit("/", 1)[-1]
    return {**told, **shapes[reference]} if reference in shapes else told


def _title(adapter: Adapter, name: str, told: Mapping[str, Any]) -> Said:
    own = adapter.settings.model_fields[name].title  # pydantic makes one of the name where there is none
    known = _KNOWN.get(name)
    en = own or (known[0].en if known else _spelled(name))
    usual = known[0].zh if known else _spelled_in_chinese(name)
    zh = str(told.get("title_zh") or usual)
    return Said(en, zh if _CHINESE.search(zh) else f"{usual} {zh}")  # the vendor's own word alone tells a reader of Chinese little


def _description(name: str, told: Mapping[str, Any]) -> Said:
    known = _KNOWN.get(name)
    en = told.get("description") or (known[1].en if known else "")
    zh = told.get("description_zh") or (known[1].zh if known else "")
    return Said(str(en), str(zh))


def _spelled(name: str) -> str:
    words = name.split("_")
    return " ".join([words[0].capitalize(), *(_UPPER.get(word, word) for word in words[1:])])


def _spelled_in_chinese(name: str) -> str:
    spelled = "".join(_WORDS.get(word, f" {word} ") for word in name.split("_")).strip()
    return spelled if _CHINESE.search(spelled) else f"参数 {name}"


_UPPER: Final = {"id": "ID", "url": "URL", "ip": "IP", "aes": "AES", "rsa": "RSA"}

_WORDS: Final[Mapping[str, str]] = {
    "accepted": "已受理", "access": "访问", "account": "账号", "address": "地址", "aes": "AES ", "agent": "代理", "agentid": "代理 ID",
    "airtime": "话费", "algorithm": "算法", "allow": "允许", "amount": "金额", "answer": "应答", "api": "接口", "apikey": "接口密钥",
    "app": "应用", "appid": "应用 ID", "appkey": "应用公钥", "appsecret": "应用密钥", "area": "地区", "audience": "受众", "auth": "认证",
    "balance": "余额", "base": "接口", "batch": "批量", "bearer": "令牌", "body": "请求体", "brand": "品牌", "business": "业务", "buyer": "买家",
    "by": "按", "callback": "回调", "can": "可", "card": "卡密", "cards": "卡密", "carrier": "运营商", "category": "分类", "cents": "分",
    "cert": "证书", "certificate": "证书", "channel": "渠道", "channels": "渠道", "charset": "字符集", "cidrs": " IP 段", "city": "城市",
    "class": "类别", "client": "客户", "code": "代码", "codes": "代码", "concurrency": "并发数", "consumer": "客户", "cost": "成本",
    "count": "数量",
    "countries": "国家", "country": "国家", "currency": "币种", "customer": "客户", "day": "日", "days": "天数", "decimal": "小数", "default": "默认",
    "delivery": "交付", "des": " DES ", "digest": "摘要", "document": "文档", "email": "邮箱", "encoding": "编码", "encryption": "加密",
    "endpoint": "接口", "environment": "环境", "extra": "附加", "face": "面值", "failure": "失败", "fen": "分", "field": "字段", "fields": "字段",
    "file": "文件", "final": "最终", "format": "格式", "gift": "礼品", "goods": "商品", "grant": "授权", "group": "分组", "has": "",
    "hash": "摘要", "header": "请求头", "host": "主机", "hour": "小时", "hours": "小时", "http": " HTTP ", "id": " ID", "idempotency": "幂等",
    "identity": "身份", "in": "内", "interval": "间隔", "ip": " IP", "ips": " IP 列表", "is": "", "item": "条目", "items": "条目", "iv": " IV ",
    "key": "密钥", "kind": "种类", "known": "已知", "language": "语言", "lead": "提前", "level": "级别", "limit": "上限", "list": "列表",
    "lists": "列表", "live": "正式", "local": "本地", "locale": "语言", "login": "登录", "look": "查询", "lookback": "回看", "lookup": "查询",
    "max": "最大", "mch": "商户", "member": "会员", "merchant": "商户", "method": "方法", "mid": "商户 ID", "min": "最小", "minutes": "分钟",
    "mobile": "手机号", "mode": "模式", "most": "最多", "name": "名称", "no": "编号", "node": "节点", "notice": "通知", "notification": "通知",
    "notify": "通知", "number": "编号", "of": "的", "only": "仅", "open": "开放", "operator": "操作员", "order": "订单", "our": "我方",
    "page": "每页", "pages": "页数", "partner": "合作方", "pass": "密码", "password": "密码", "path": "路径", "per": "每", "phone": "电话",
    "pid": "合作方 ID", "pin": "密码", "platform": "平台", "port": "端口", "prefix": "前缀", "price": "价格", "prices": "价格", "private": "私有",
    "product": "商品", "products": "商品", "project": "项目", "provider": "提供方", "province": "省份", "proxy": "代理", "public": "公开",
    "quantity": "数量", "query": "查询", "rate": "速率", "receive": "接收", "receiver": "接收方", "recharge": "充值", "reference": "订单号",
    "refresh": "刷新", "refusal": "拒绝", "region": "地区", "remote": "对方", "reply": "回复", "request": "请求", "response": "应答",
    "result": "结果", "retry": "重试", "rsa": " RSA ", "s": "（秒）", "safe": "安全", "sandbox": "沙箱", "scope": "权限范围",
    "scopes": "权限范围", "secret": "密钥", "seller": "卖家", "send": "发送", "sender": "发送方", "sends": "发送", "session": "会话",
    "shop": "店铺", "show": "显示", "sid": "店铺 ID", "sign": "签名", "signature": "签名", "signing": "签名", "site": "站点", "size": "条数",
    "sku": "商品编码", "skus": "商品编码", "sms": "短信", "split": "拆分", "statement": "对账单", "stock": "库存", "store": "店铺",
    "success": "成功", "supplier": "供货商", "target": "充值账号", "template": "模板", "tenant": "租户", "terms": "条款", "test": "测试",
    "text": "文本", "their": "对方", "timeout": "超时", "timestamp": "时间戳", "timezone": "时区", "tls": " TLS ", "token": "令牌",
    "topup": "充值", "trade": "交易", "trusted": "可信", "type": "类型", "types": "类型", "uid": "用户 ID", "unit": "单位", "units": "数量",
    "up": "", "url": "地址", "use": "使用", "user": "用户", "userid": "用户 ID", "username": "用户名", "value": "值", "vendor": "供货商",
    "verify": "验签", "version": "版本", "voucher": "凭证", "wallet": "钱包", "warehouse": "仓库", "webhook": "回调", "window": "时间窗",
    "with": "含", "yaml": " YAML ", "yuan": "元", "zero": "零", "zone": "时区",
}  # fmt: skip

_KNOWN: Final[Mapping[str, tuple[Said, Said]]] = {
    "base_url": (
        Said("Address", "接口地址"),
        Said(
            "Where its interface answers, with https:// and no path behind the host unless its document names one.",
            "对方接口的域名，以 https:// 开头；文档没有写路径就不要带路径。",
        ),
    ),
    "callback_base_url": (
        Said("Callback address", "回调地址"),
        Said("Where it calls us back, if not at the usual address.", "对方回调我们的地址，留空用默认地址。"),
    ),
    "app_id": (
        Said("App ID", "应用 ID"),
        Said("The number of our account there, as the supplier gave it.", "对方分配的应用编号（appid）。"),
    ),
    "app_key": (
        Said("App key", "应用公钥"),
        Said("Names our account in every call; it is not the secret.", "每次请求都带的账号标识（appkey），不是密钥。"),
    ),
    "app_secret": (
        Said("App secret", "应用密钥"),
        Said("Signs every call; sealed, and never shown again.", "用来签名的密钥，加密保存，之后不再显示。"),
    ),
    "secret": (
        Said("Secret", "密钥"),
        Said("Signs every call; sealed, and never shown again.", "用来签名的密钥，加密保存，之后不再显示。"),
    ),
    "api_key": (
        Said("API key", "接口密钥"),
        Said("Names and proves our account; sealed, and never shown again.", "对方分配的接口密钥，加密保存，之后不再显示。"),
    ),
    "api_secret": (
        Said("API secret", "接口密钥"),
        Said("Proves our account; sealed, and never shown again.", "对方分配的接口密钥，加密保存，之后不再显示。"),
    ),
    "key": (
        Said("Key", "密钥"),
        Said("Signs every call; sealed, and never shown again.", "用来签名的密钥，加密保存，之后不再显示。"),
    ),
    "user_id": (
        Said("User ID", "用户 ID"),
        Said("The number of our account there.", "对方分配的用户编号。"),
    ),
    "userid": (
        Said("User ID", "用户 ID"),
        Said("The number of our account there.", "对方分配的用户编号。"),
    ),
    "merchant_id": (
        Said("Merchant ID", "商户号"),
        Said("The number of our account there.", "对方分配的商户编号。"),
    ),
    "customer_id": (
        Said("Customer ID", "客户编号"),
        Said("The number of our account there.", "对方分配的客户编号。"),
    ),
    "client_id": (
        Said("Client ID", "客户端 ID"),
        Said("Names our account when a token is fetched.", "换取令牌时使用的客户端编号。"),
    ),
    "client_secret": (
        Said("Client secret", "客户端密钥"),
        Said("Proves our account when a token is fetched; sealed.", "换取令牌时使用的密钥，加密保存。"),
    ),
    "username": (
        Said("User name", "用户名"),
        Said("Our account there.", "我们在对方的账号。"),
    ),
    "password": (
        Said("Password", "密码"),
        Said("Of our account there; sealed, and never shown again.", "我们在对方账号的密码，加密保存，之后不再显示。"),
    ),
    "currency": (
        Said("Currency", "币种"),
        Said("Of our wallet there, three capital letters.", "我们在对方余额的币种，三个大写字母。"),
    ),
    "timeout_s": (
        Said("Timeout (s)", "超时（秒）"),
        Said("How long one call may take in all; what takes longer is looked up, not sent again.", "单次调用的最长时间；超时后查单，不会重新下单。"),
    ),
    "sandbox": (
        Said("Sandbox", "沙箱"),
        Said("Talk to the supplier's test system; nothing real is sold there.", "连接对方的测试环境，不会产生真实交易。"),
    ),
}
