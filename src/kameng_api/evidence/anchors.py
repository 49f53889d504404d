"""Heads put where the people of this database cannot change them: an append-only file, a bucket that forbids deletion, a time-stamp authority.

Every target is written at most once per block and never overwrites; what cannot be reached is tried again by the next round. What a target
already holds is read first: a chain that is shorter than its anchors has been cut, or was put back by a restore.
"""

import importlib
import os
import urllib.request
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from kameng_api.evidence.errors import ChainBroken
from kameng_api.evidence.verify import Anchor, anchor_from
from kameng_api.kit.clock import utc_now
from kameng_api.settings import Settings

_TIMEOUT_S: Final = 20
_MOST_TOKEN_BYTES: Final = 1 << 20


class Target(Protocol):
    """One place for anchors. Its functions block: call them from a thread. They raise what the place's own library raises, or ChainBroken."""

    name: str

    def newest(self, since: Anchor | None) -> Anchor | None:
        """The highest head that the place holds, `since` being the last that it took; None where it holds none, or keeps none itself."""
        ...

    def put(self, anchor: Anchor, signature: bytes, key_id: str) -> bytes | None:
        """Put a head there, durably. Returns a token to be kept beside the chain, if the place gives one."""
        ...


def targets_of(settings: Settings) -> list[Target]:
    """Every place that is set up. Raises ImportError when its library is not installed."""
    found: list[Target] = []
    if settings.anchor_file is not None:
        found.append(FileTarget(settings.anchor_file))
    if settings.anchor_bucket is not None:
        found.append(BucketTarget(settings))
    if settings.anchor_tsa is not None:
        found.append(TimeStamps(settings.anchor_tsa))
    return found


def names_of(settings: Settings) -> list[str]:
    """The targets' names, without connecting to any."""
    kinds = {"file": settings.anchor_file, "s3": settings.anchor_bucket, "tsa": settings.anchor_tsa}
    return [name for name, value in kinds.items() if value is not None]


def spelt(anchor: Anchor, signature: bytes, key_id: str) -> bytes:
    """An anchor as it is written down."""
    return orjson.dumps({**anchor.form(), "key": key_id, "signature": signature.hex()})


def read_anchors(path: Path) -> list[Anchor]:
    """The heads in a file of anchors; a last line that was cut by a crash is left out. Raises ValueError."""
    found = []
    lines = path.read_bytes().split(b"\n")
    for n, line in enumerate(lines):
        if not line:
            continue
        try:
            found.append(anchor_from(orjson.loads(line)))
        except (ValueError, KeyError, TypeError):
            if n == len(lines) - 1:
                break
            raise ValueError(f"line {n + 1} of {path} is no anchor") from None
    return found


class FileTarget:
    """One line per head, appended and flushed to the disk. Put it on another machine's disk, or on one that only appends (`chattr +a`)."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def newest(self, _since: Anchor | None) -> Anchor | None:
        if not self._path.exists():
            return None
        return max(read_anchors(self._path), key=lambda a: (a.epoch, a.no), default=None)

    def put(self, anchor: Anchor, signature: bytes, key_id: str) -> bytes | None:
        line = spelt(anchor, signature, key_id) + b"\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a line cut by a crash stays one line
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return None


class BucketTarget:
    """One object per head in an S3-compatible bucket with object lock, kept in COMPLIANCE mode: nobody can delete it before its time."""

    name = "s3"

    def __init__(self, settings: Settings) -> None:
        assert settings.anchor_bucket is not None
        bucket, _, prefix = settings.anchor_bucket.removeprefix("s3://").partition("/")
        self._bucket, self._prefix = bucket, f"{prefix.rstrip('/')}/" if prefix else ""
        self._retention = timedelta(days=settings.anchor_retention_days)
        config = importlib.import_module("botocore.config").Config(
            connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"max_attempts": 2}, s3={"addressing_style": "path"}
        )
        secret = settings.anchor_bucket_secret
        self._client: Any = importlib.import_module("boto3").client(
            "s3",
            endpoint_url=settings.anchor_bucket_endpoint,
            aws_access_key_id=settings.anchor_bucket_key_id,
            aws_secret_access_key=None if secret is None else secret.get_secret_value(),
            region_name=settings.anchor_bucket_region,
            config=config,
        )
        self._refused: Any = importlib.import_module("botocore.exceptions").ClientError

    def _key(self, anchor: Anchor) -> str:
        return f"{self._prefix}chain-{anchor.chain}/{anchor.epoch:06d}-{anchor.no:012d}.json"

    def newest(self, since: Anchor | None) -> Anchor | None:
        # Keys sort as heads do: only what follows the last one is listed. Versions, because a delete marker hides a locked object from a plain list.
        before = "" if since is None else self._key(replace(since, no=since.no - 1))
        found = self._versions(Prefix=self._prefix, KeyMarker=before)
        return self._read(max(found)) if found else None

    def _versions(self, **which: str) -> dict[str, str]:
        """Key → the oldest version of what was put there: the one that is locked since then, whatever was written over it."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, **which)
        listed = [v for page in pages for v in page.get("Versions", ())]  # per key, the newest comes first
        return {v["Key"]: v["VersionId"] for v in listed if v["Key"].endswith(".json")}

    def _read(self, key: str) -> Anchor:
        version = self._versions(Prefix=key)[key]
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key, VersionId=version)["Body"].read()
        return anchor_from(orjson.loads(body))

    def put(self, anchor: Anchor, signature: bytes, key_id: str) -> bytes | None:
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._key(anchor),
                Body=spelt(anchor, signature, key_id),
                ContentType="application/json",
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=utc_now() + self._retention,
            )
        except self._refused as refusal:
            if refusal.response["Error"]["Code"] not in ("PreconditionFailed", "412"):
                raise
            if self._read(self._key(anchor)) != anchor:  # written by an earlier round that died, or by another chain
                raise ChainBroken(f"the bucket holds another block {anchor.no}") from None
        return None


class TimeStamps:
    """RFC 3161 tokens over the heads' hashes: a third party's word for when a block existed. The token is kept in `chain_anchors`."""

    name = "tsa"

    def __init__(self, url: str) -> None:
        self._url = url
        self._library: Any = importlib.import_module("rfc3161_client")

    def newest(self, _since: Anchor | None) -> Anchor | None:
        return None

    def put(self, anchor: Anchor, _signature: bytes, _key_id: str) -> bytes | None:
        asked = self._library.TimestampRequestBuilder().data(anchor.hash).nonce(nonce=True).cert_request(cert_request=True).build()
        request = urllib.request.Request(  # noqa: S310  the operator's own address
            self._url, data=asked.as_bytes(), headers={"Content-Type": "application/timestamp-query"}
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            token: bytes = answer.read(_MOST_TOKEN_BYTES)
        told = self._library.decode_timestamp_response(token)
        if told.status != 0 or told.tst_info.message_imprint.message != _imprint(asked) or told.tst_info.nonce != asked.nonce:
            raise ValueError(f"the time-stamp authority did not stamp what it was asked (status {told.status})")
        return token


def _imprint(asked: Any) -> bytes:
    message: bytes = asked.message_imprint.message
    return message


def stamped_at(token: bytes) -> datetime:
    """The time in a token. Its signature is for whoever verifies, with the authority's certificate: see the documentation."""
    moment: datetime = importlib.import_module("rfc3161_client").decode_timestamp_response(token).tst_info.gen_time
    return moment


def check_not_ahead(newest: Anchor | None, head: Anchor, at_its_place: bytes | None) -> None:
    """Raises ChainBroken when a target knows more than the chain, or something else. `at_its_place`: our hash of the block it names."""
    if newest is None or newest.epoch < head.epoch:
        return
    if newest.epoch > head.epoch or newest.no > head.no:
        raise ChainBroken(f"block {newest.no} of epoch {newest.epoch} was anchored; the chain ends with block {head.no} of epoch {head.epoch}")
    if at_its_place != newest.hash:
        raise ChainBroken(f"block {newest.no} is not the one that was anchored")
