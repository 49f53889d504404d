#!/usr/bin/env bash
# Sign a request with bash, OpenSSL (1.1.1 or later) and curl. For trying things out: the secret is visible in the
# process list while openssl runs.
#
#   ./kameng.sh                          prints the signatures of the published test vectors
#   ./kameng.sh GET /v1/balance          sends a request; set KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET
#   ./kameng.sh POST /v1/orders '{...}'
set -euo pipefail

# Seven lines, each ended by one line feed, the last one too: scheme timestamp nonce key_id method target body
string_to_sign() {
  local body_sha256
  body_sha256=$(printf '%s' "$7" | openssl dgst -sha256 -r | cut -d ' ' -f 1)
  printf '%s\n' "$1" "$2" "$3" "$4" "$5" "$6" "$body_sha256"
}

# The key is the secret as it is written, not decoded. Text on standard input.
sign_hmac() {
  openssl dgst -sha256 -hmac "$1" -binary | openssl base64 -A
}

# The private key in a file, PKCS#8 DER. Text on standard input.
sign_ed25519() {
  local text
  text=$(mktemp)
  cat > "$text"
  openssl pkeyutl -sign -rawin -in "$text" -inkey "$1" -keyform DER | openssl base64 -A
  rm -f "$text"
}

# Here the secret is decoded: base64 after whsec_. Arguments: secret id timestamp body
webhook_signature() {
  local key
  key=$(printf '%s' "${1#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
  printf 'v1,%s' "$(printf '%s' "$2.$3.$4" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)"
}

# The target is signed and sent as it is: percent-encode the query before, keep the path plain.
send() {
  local method=$1 target=$2 body=${3:-} timestamp nonce signature
  timestamp=$(date +%s)
  nonce=$(openssl rand -hex 16)
  signature=$(string_to_sign KM1-HMAC-SHA256 "$timestamp" "$nonce" "$KAMENG_KEY_ID" "$method" "$target" "$body" | sign_hmac "$KAMENG_SECRET")
  local options=(--silent --show-error --max-time 30 --path-as-is --globoff --request "$method" --write-out '%{stderr}%{http_code}\n')
  if [ -n "$body" ]; then options+=(--data-binary "$body"); fi
  curl "${options[@]}" \
    --header "Authorization: KM1-HMAC-SHA256 key_id=\"$KAMENG_KEY_ID\",timestamp=\"$timestamp\",nonce=\"$nonce\",signature=\"$signature\"" \
    --header 'Content-Type: application/json' \
    "$KAMENG_BASE_URL$target"
}

print_vectors() {
  local secret=sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA key_id=ak_test_01JD0000000000000000000001
  local body='{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}'
  local post=(1795350000 b7f3c1d2e4a5968778695a4b3c2d1e0f "$key_id" POST /v1/orders "$body")
  local get=(1795350001 0f1e2d3c4b5a69788796a5b4c3d2e1f0 "$key_id" GET '/v1/orders?limit=20&status=succeeded&cursor=abc%3D' '')
  local key
  key=$(mktemp)
  printf '\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20' > "$key"
  printf '\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f' >> "$key"
  printf '\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f' >> "$key"
  echo "post hmac $(string_to_sign KM1-HMAC-SHA256 "${post[@]}" | sign_hmac "$secret")"
  echo "post ed25519 $(string_to_sign KM1-ED25519 "${post[@]}" | sign_ed25519 "$key")"
  echo "get hmac $(string_to_sign KM1-HMAC-SHA256 "${get[@]}" | sign_hmac "$secret")"
  rm -f "$key"
  local event='{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z","data":{"id":"ord_01JD0000000000000000000009","version":4}}'
  echo "webhook $(webhook_signature whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= evt_01JD0000000000000000000042 1795350300 "$event")"
}

if [ $# -ge 2 ]; then send "$@"; else print_vectors; fi
