import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Duration;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Sign a request and verify a webhook with Java's standard library (Java 17 or later).
 *
 * <pre>
 * java Kameng.java                          prints the signatures of the published test vectors
 * java Kameng.java GET /v1/balance          sends a request; set KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET
 * java Kameng.java POST /v1/orders '{...}'
 * </pre>
 */
public final class Kameng {

    /** Seven lines, each ended by one line feed, the last one too. */
    static byte[] stringToSign(String scheme, String timestamp, String nonce, String keyId, String method,
                               String target, byte[] body) throws GeneralSecurityException {
        String bodySha256 = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
        String[] lines = {scheme, timestamp, nonce, keyId, method, target, bodySha256};
        return (String.join("\n", lines) + "\n").getBytes(StandardCharsets.UTF_8);
    }

    static byte[] hmac(byte[] key, byte[] text) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text);
    }

    /** The key is the secret as it is written, not decoded. */
    static String signHmac(String secret, byte[] text) throws GeneralSecurityException {
        return Base64.getEncoder().encodeToString(hmac(secret.getBytes(StandardCharsets.US_ASCII), text));
    }

    static String signEd25519(byte[] seed, byte[] text) throws GeneralSecurityException {
        byte[] pkcs8 = HexFormat.of().parseHex("302e020100300506032b657004220420" + HexFormat.of().formatHex(seed));
        Signature signature = Signature.getInstance("Ed25519");
        signature.initSign(KeyFactory.getInstance("Ed25519").generatePrivate(new PKCS8EncodedKeySpec(pkcs8)));
        signature.update(text);
        return Base64.getEncoder().encodeToString(signature.sign());
    }

    /** The Authorization header of one request; a retry needs a new one. */
    static String authorization(String keyId, String secret, String method, String target, byte[] body)
            throws GeneralSecurityException {
        byte[] random = new byte[16];
        new SecureRandom().nextBytes(random);
        String scheme = "KM1-HMAC-SHA256";
        String timestamp = Long.toString(System.currentTimeMillis() / 1000);
        String nonce = HexFormat.of().formatHex(random);
        String signature = signHmac(secret, stringToSign(scheme, timestamp, nonce, keyId, method, target, body));
        return scheme + " key_id=\"" + keyId + "\",timestamp=\"" + timestamp + "\",nonce=\"" + nonce
                + "\",signature=\"" + signature + "\"";
    }

    /** Here the secret is decoded: base64 after whsec_. */
    static String webhookSignature(String secret, String id, String timestamp, byte[] body)
            throws GeneralSecurityException {
        byte[] key = Base64.getDecoder().decode(secret.substring("whsec_".length()));
        byte[] head = (id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8);
        byte[] text = new byte[head.length + body.length];
        System.arraycopy(head, 0, text, 0, head.length);
        System.arraycopy(body, 0, text, head.length, body.length);
        return "v1," + Base64.getEncoder().encodeToString(hmac(key, text));
    }

    /** Headers with lower-case names, body as the bytes received. While a secret is rotated, several signatures come. */
    static boolean verifyWebhook(String secret, Map<String, String> headers, byte[] body, long now)
            throws GeneralSecurityException {
        String timestamp = headers.get("webhook-timestamp");
        if (!timestamp.matches("[0-9]{1,12}") || Math.abs(now - Long.parseLong(timestamp)) > 300) {
            return false;
        }
        byte[] expected = webhookSignature(secret, headers.get("webhook-id"), timestamp, body)
                .getBytes(StandardCharsets.UTF_8);
        boolean found = false;
        for (String given : headers.get("webhook-signature").split(" ")) {
            found |= MessageDigest.isEqual(expected, given.getBytes(StandardCharsets.UTF_8));
        }
        return found;
    }

    /** target is signed and sent as it is: percent-encode the query before, keep the path plain. */
    static void send(String method, String target, byte[] body) throws Exception {
        String header = authorization(System.getenv("KAMENG_KEY_ID"), System.getenv("KAMENG_SECRET"), method, target, body);
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("KAMENG_BASE_URL") + target))
                .version(HttpClient.Version.HTTP_1_1)
                .timeout(Duration.ofSeconds(30))
                .header("Authorization", header)
                .header("Content-Type", "application/json")
                .method(method, body.length == 0
                        ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofByteArray(body))
                .build();
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(response.statusCode() + " " + response.body());
    }

    static void printVectors() throws GeneralSecurityException {
        String secret = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA";
        String keyId = "ak_test_01JD0000000000000000000001";
        byte[] body = ("{\"merchant_order_no\":\"PO-20261122-0001\",\"sku\":\"mobile-cn-100\",\"quantity\":1,"
                + "\"target\":\"13800138000\"}").getBytes(StandardCharsets.UTF_8);
        String nonce = "b7f3c1d2e4a5968778695a4b3c2d1e0f";
        String target = "/v1/orders?limit=20&status=succeeded&cursor=abc%3D";
        byte[] seed = new byte[32];
        for (int index = 0; index < seed.length; index++) {
            seed[index] = (byte) index;
        }
        System.out.println("post hmac " + signHmac(secret,
                stringToSign("KM1-HMAC-SHA256", "1795350000", nonce, keyId, "POST", "/v1/orders", body)));
        System.out.println("post ed25519 " + signEd25519(seed,
                stringToSign("KM1-ED25519", "1795350000", nonce, keyId, "POST", "/v1/orders", body)));
        System.out.println("get hmac " + signHmac(secret, stringToSign("KM1-HMAC-SHA256", "1795350001",
                "0f1e2d3c4b5a69788796a5b4c3d2e1f0", keyId, "GET", target, new byte[0])));

        String whsec = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        String event = "{\"id\":\"evt_01JD0000000000000000000042\",\"type\":\"order.succeeded\","
                + "\"timestamp\":\"2026-11-22T11:44:59Z\",\"data\":{\"id\":\"ord_01JD0000000000000000000009\",\"version\":4}}";
        byte[] bytes = event.getBytes(StandardCharsets.UTF_8);
        Map<String, String> headers = Map.of(
                "webhook-id", "evt_01JD0000000000000000000042",
                "webhook-timestamp", "1795350300",
                "webhook-signature", "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A=");
        System.out.println("webhook " + webhookSignature(whsec, headers.get("webhook-id"), "1795350300", bytes));
        boolean verified = verifyWebhook(whsec, headers, bytes, 1795350301L)
                && !verifyWebhook(whsec, headers, (event + " ").getBytes(StandardCharsets.UTF_8), 1795350301L)
                && !verifyWebhook(whsec, headers, bytes, 1795350601L);
        if (!verified) {
            System.exit(1);
        }
        System.out.println("webhook verified");
    }

    public static void main(String[] args) throws Exception {
        if (args.length > 1) {
            send(args[0], args[1], args.length > 2 ? args[2].getBytes(StandardCharsets.UTF_8) : new byte[0]);
        } else {
            printVectors();
        }
    }
}
