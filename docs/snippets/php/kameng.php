<?php
// Sign a request and verify a webhook with PHP 8 (sodium, for Ed25519, is part of PHP).
//
//   php kameng.php                          prints the signatures of the published test vectors
//   php kameng.php GET /v1/balance          sends a request; set KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET
//   php kameng.php POST /v1/orders '{...}'

declare(strict_types=1);

// Seven lines, each ended by one line feed, the last one too.
function string_to_sign(
    string $scheme, string $timestamp, string $nonce, string $keyId, string $method, string $target, string $body
): string {
    return implode("\n", [$scheme, $timestamp, $nonce, $keyId, $method, $target, hash('sha256', $body)]) . "\n";
}

// The key is the secret as it is written, not decoded.
function sign_hmac(string $secret, string $text): string
{
    return base64_encode(hash_hmac('sha256', $text, $secret, true));
}

function sign_ed25519(string $seed, string $text): string
{
    $secretKey = sodium_crypto_sign_secretkey(sodium_crypto_sign_seed_keypair($seed));
    return base64_encode(sodium_crypto_sign_detached($text, $secretKey));
}

// The Authorization header of one request; a retry needs a new one.
function authorization(string $keyId, string $secret, string $method, string $target, string $body): string
{
    $scheme = 'KM1-HMAC-SHA256';
    $timestamp = (string) time();
    $nonce = bin2hex(random_bytes(16));
    $signature = sign_hmac($secret, string_to_sign($scheme, $timestamp, $nonce, $keyId, $method, $target, $body));
    return "$scheme key_id=\"$keyId\",timestamp=\"$timestamp\",nonce=\"$nonce\",signature=\"$signature\"";
}

// Here the secret is decoded: base64 after whsec_.
function webhook_signature(string $secret, string $id, string $timestamp, string $body): string
{
    $key = base64_decode(substr($secret, strlen('whsec_')), true);
    return 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
}

// Headers with lower-case names, body as received (php://input). While a secret is rotated, several signatures come.
function verify_webhook(string $secret, array $headers, string $body, ?int $now = null): bool
{
    $timestamp = $headers['webhook-timestamp'];
    if (!preg_match('/\A[0-9]{1,12}\z/', $timestamp) || abs(($now ?? time()) - (int) $timestamp) > 300) {
        return false;
    }
    $expected = webhook_signature($secret, $headers['webhook-id'], $timestamp, $body);
    foreach (explode(' ', $headers['webhook-signature']) as $given) {
        if (hash_equals($expected, $given)) {
            return true;
        }
    }
    return false;
}

// $target is signed and sent as it is: percent-encode the query before, keep the path plain.
function send(string $method, string $target, string $body): void
{
    $header = authorization(getenv('KAMENG_KEY_ID'), getenv('KAMENG_SECRET'), $method, $target, $body);
    $context = stream_context_create(['http' => [
        'method' => $method,
        'header' => "Authorization: $header\r\nContent-Type: application/json",
        'content' => $body,
        'timeout' => 30,
        'ignore_errors' => true,
        'follow_location' => 0,
    ]]);
    $answer = file_get_contents(getenv('KAMENG_BASE_URL') . $target, false, $context);
    echo explode(' ', $http_response_header[0])[1], ' ', $answer, "\n";
}

function print_vectors(): void
{
    $secret = 'sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA';
    $keyId = 'ak_test_01JD0000000000000000000001';
    $body = '{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}';
    $post = ['1795350000', 'b7f3c1d2e4a5968778695a4b3c2d1e0f', $keyId, 'POST', '/v1/orders', $body];
    $target = '/v1/orders?limit=20&status=succeeded&cursor=abc%3D';
    $get = ['1795350001', '0f1e2d3c4b5a69788796a5b4c3d2e1f0', $keyId, 'GET', $target, ''];
    $seed = implode('', array_map('chr', range(0, 31)));
    echo 'post hmac ', sign_hmac($secret, string_to_sign('KM1-HMAC-SHA256', ...$post)), "\n";
    echo 'post ed25519 ', sign_ed25519($seed, string_to_sign('KM1-ED25519', ...$post)), "\n";
    echo 'get hmac ', sign_hmac($secret, string_to_sign('KM1-HMAC-SHA256', ...$get)), "\n";

    $whsec = 'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';
    $event = '{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z",'
        . '"data":{"id":"ord_01JD0000000000000000000009","version":4}}';
    $headers = [
        'webhook-id' => 'evt_01JD0000000000000000000042',
        'webhook-timestamp' => '1795350300',
        'webhook-signature' => 'v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A=',
    ];
    echo 'webhook ', webhook_signature($whsec, $headers['webhook-id'], $headers['webhook-timestamp'], $event), "\n";
    $verified = verify_webhook($whsec, $headers, $event, 1795350301)
        && !verify_webhook($whsec, $headers, "$event ", 1795350301)
        && !verify_webhook($whsec, $headers, $event, 1795350601);
    if (!$verified) {
        exit(1);
    }
    echo "webhook verified\n";
}

if ($argc > 2) {
    send($argv[1], $argv[2], $argv[3] ?? '');
} else {
    print_vectors();
}
