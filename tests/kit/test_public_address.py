"""Our own table of what is public, and which URLs are refused by their spelling."""

import pytest

from kameng_api.kit.public_address import UrlRefused, check_url, is_loopback, is_public

INSIDE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.170"),
    *("192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
    *("fe80::1%eth0", "2606:4700::1%1", "fec0::1", "ff02::1", "ff0e::1", "4000::1", "e000::1"),
]
OUTSIDE = [
    *("8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "223.5.5.5"),
    *("2606:4700:4700::1111", "2400:3200::1"),
]


@pytest.mark.parametrize("address", INSIDE)
def test_inside_and_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(address)
    assert not is_loopback(address)


def test_loopback_is_only_what_is_spelt_so() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.8.8.8")
    assert is_loopback("::1")
    for address in ("::ffff:127.0.0.1", "::127.0.0.1", "0.0.0.0", "::", "::1%lo", "10.0.0.1"):
        assert not is_loopback(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://merchant.example/kameng",
        "https://merchant.example:443/",
        "https://merchant.example:8443/a?b=c&d=%20",
        "https://merchant.example./hook",
        "HTTPS://Merchant.Example/hook",
        "https://xn--fiqs8s.example/hook",
        "https://a.b-c.example/" + "x" * 2000,
    ],
)
def test_an_ordinary_endpoint_may_be_registered(url: str) -> None:
    check_url(url, development=False)
    check_url(url, development=True)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "merchant.example",
            "//merchant.example/",
            "https://",
            "https:///hook",
            "https:merchant.example",
            "ftp://merchant.example/",
        ),
        *(
            "http://merchant.example/",
            "file:///etc/passwd",
            "gopher://merchant.example/",
            "javascript:alert(1)",
            "data:,x",
        ),
        *(
            "https://merchant.example:80/",
            "https://merchant.example:22/",
            "https://merchant.example:0/",
            "https://merchant.example:/",
        ),
        *(
            "https://merchant.example:99999/",
            "https://merchant.example:443:443/",
            "https://merchant.example:４４３/",
            "https://merchant.example:-1/",
        ),
        *(
            "https://user@merchant.example/",
            "https://user:pw@merchant.example/",
            "https://@merchant.example/",
            "https://a@b@merchant.example/",
        ),
        *(
            "https://merchant.example/#x",
            "https://merchant.example#",
            "https://merchant.example/a b",
            "https://merchant.example/\n",
        ),
        *(
            "https://merchant.example\\@127.0.0.1/",
            "https://merchant.example/\x00",
            "https://mérchant.example/",
            "https://merchant。example/",
        ),
        *(
            "https://localhost/",
            "https://merchant/",
            "https://a.localhost/",
            "https://printer.local/",
            "https://x.svc/",
            "https://1.0.0.127.in-addr.arpa/",
        ),
        *(
            "https://metadata.google.internal/",
            "https://-a.example/",
            "https://a-.example/",
            "https://a_b.example/",
            "https://.example/",
        ),
        *(
            "https://a..example/",
            "https://merchant.example../",
            "https://" + "a" * 64 + ".example/",
            "https://" + "a." * 130 + "example/",
        ),
        *(
            "https://8.8.8.8/",
            "https://8.8.8.8./",
            "https://[2606:4700::1]/",
            "https://[v1.x]/",
            "https://[/",
            "https://134744072/",
            "https://0x8.8/",
        ),
        *(
            "https://8.8.8.010/",
            "https://a.0x7f/",
            "https://merchant.example/" + "x" * 2048,
            " https://merchant.example/",
            "https://merchant.example/{a}",
        ),
    ],
)
def test_everything_else_is_refused_in_any_setting(url: str) -> None:
    for development in (False, True):
        if development and url == "https://localhost/":
            continue
        with pytest.raises(UrlRefused):
            check_url(url, development=development)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8091/hook",
        "https://127.0.0.1:8091/hook",
        "http://[::1]:80/",
        "http://localhost:9000/x",
        "http://127.0.0.1/",
    ],
)
def test_loopback_is_allowed_in_development_only(url: str) -> None:
    check_url(url, development=True)
    with pytest.raises(UrlRefused):
        check_url(url, development=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://[fd00::1]/",
        "http://u:p@127.0.0.1/",
        "ftp://127.0.0.1/",
        "http://2130706433/",
        "http://0.0.0.0/",
    ],
)
def test_development_opens_nothing_but_loopback(url: str) -> None:
    with pytest.raises(UrlRefused):
        check_url(url, development=True)
