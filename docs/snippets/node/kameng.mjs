// Sign a request and verify a webhook with Node's standard library (Node 18 or later).
//
//   node kameng.mjs                          prints the signatures of the published test vectors
//   node kameng.mjs GET /v1/balance          sends a request; set KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET
//   node kameng.mjs POST /v1/orders '{...}'
import { createHash, createHmac, createPrivateKey, randomBytes, sign, timingSafeEqual } from "node:crypto";

// Seven lines, each ended by one line feed, the last one too.
function stringToSign(scheme, timestamp, nonce, keyId, method, target, body) {
  const bodySha256 = createHash("sha256").update(body).digest("hex");
  return [scheme, timestamp, nonce, keyId, method, target, bodySha256].map((line) => line + "\n").join("");
}

// The key is the secret as it is written, not decoded.
function signHmac(secret, text) {
  return createHmac("sha256", secret).update(text).digest("base64");
}

function signEd25519(seed, text) {
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  return sign(null, Buffer.from(text), createPrivateKey({ key: der, format: "der", type: "pkcs8" })).toString("base64");
}

// The Authorization header of one request; a retry needs a new one.
function authorization(keyId, secret, method, target, body) {
  const scheme = "KM1-HMAC-SHA256";
  const timestamp = String(Math.floor(Date.now() / 1000));
  const nonce = randomBytes(16).toString("hex");
  const signature = signHmac(secret, stringToSign(scheme, timestamp, nonce, keyId, method, target, body));
  return `${scheme} key_id="${keyId}",timestamp="${timestamp}",nonce="${nonce}",signature="${signature}"`;
}

// Here the secret is decoded: base64 after whsec_.
function webhookSignature(secret, id, timestamp, body) {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  return "v1," + createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
}

// Headers with lower-case names, body as the Buffer received. While a secret is rotated, several signatures come.
function verifyWebhook(secret, headers, body, now = Date.now() / 1000) {
  const timestamp = headers["webhook-timestamp"];
  if (!/^[0-9]+$/.test(timestamp) || Math.abs(now - Number(timestamp)) > 300) return false;
  const expected = Buffer.from(webhookSignature(secret, headers["webhook-id"], timestamp, body));
  return headers["webhook-signature"].split(" ").some((text) => {
    const given = Buffer.from(text);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

// `target` is signed and sent as it is: percent-encode the query before, keep the path plain.
async function send(method, target, body) {
  const { KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET } = process.env;
  const response = await fetch(KAMENG_BASE_URL + target, {
    method,
    body: body === "" ? undefined : body,
    redirect: "manual",
    signal: AbortSignal.timeout(30_000),
    headers: {
      Authorization: authorization(KAMENG_KEY_ID, KAMENG_SECRET, method, target, body),
      "Content-Type": "application/json",
    },
  });
  console.log(response.status, await response.text());
}

function printVectors() {
  const secret = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA";
  const keyId = "ak_test_01JD0000000000000000000001";
  const body =
    '{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}';
  const post = ["1795350000", "b7f3c1d2e4a5968778695a4b3c2d1e0f", keyId, "POST", "/v1/orders", body];
  const target = "/v1/orders?limit=20&status=succeeded&cursor=abc%3D";
  const get = ["1795350001", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", keyId, "GET", target, ""];
  const seed = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
  console.log("post hmac", signHmac(secret, stringToSign("KM1-HMAC-SHA256", ...post)));
  console.log("post ed25519", signEd25519(seed, stringToSign("KM1-ED25519", ...post)));
  console.log("get hmac", signHmac(secret, stringToSign("KM1-HMAC-SHA256", ...get)));

  const whsec = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
  const event = Buffer.from(
    '{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z",' +
      '"data":{"id":"ord_01JD0000000000000000000009","version":4}}',
  );
  const headers = {
    "webhook-id": "evt_01JD0000000000000000000042",
    "webhook-timestamp": "1795350300",
    "webhook-signature": "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A=",
  };
  console.log("webhook", webhookSignature(whsec, headers["webhook-id"], headers["webhook-timestamp"], event));
  const verdicts = [
    verifyWebhook(whsec, headers, event, 1795350301),
    !verifyWebhook(whsec, headers, Buffer.concat([event, Buffer.from(" ")]), 1795350301),
    !verifyWebhook(whsec, headers, event, 1795350601),
  ];
  if (!verdicts.every(Boolean)) process.exit(1);
  console.log("webhook verified");
}

const [method, target, body = ""] = process.argv.slice(2);
if (target) await send(method, target, body);
else printVectors();
