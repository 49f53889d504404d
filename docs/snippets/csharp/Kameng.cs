// Sign a request and verify a webhook with C#'s standard library (.NET 6 or later, .NET Framework 4.7.2 or later, Mono 6).
//
//   dotnet run, or with Mono: mcs -r:System.Net.Http Kameng.cs && mono Kameng.exe
//   Kameng                          prints the signatures of the published test vectors
//   Kameng GET /v1/balance          sends a request; set KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET
//   Kameng POST /v1/orders '{...}'
//
// .NET has no Ed25519 of its own: use HMAC keys, or add a library such as NSec.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;

public static class Kameng
{
    // Seven lines, each ended by one line feed, the last one too.
    public static string StringToSign(string scheme, string timestamp, string nonce, string keyId, string method, string target, byte[] body)
    {
        using (var sha256 = SHA256.Create())
        {
            string bodySha256 = BitConverter.ToString(sha256.ComputeHash(body)).Replace("-", "").ToLowerInvariant();
            return string.Concat(new[] { scheme, timestamp, nonce, keyId, method, target, bodySha256 }.Select(line => line + "\n"));
        }
    }

    static string Hmac(byte[] key, byte[] text)
    {
        using (var hmac = new HMACSHA256(key)) return Convert.ToBase64String(hmac.ComputeHash(text));
    }

    // The key is the secret as it is written, not decoded.
    public static string SignHmac(string secret, string text)
    {
        return Hmac(Encoding.ASCII.GetBytes(secret), Encoding.UTF8.GetBytes(text));
    }

    // The Authorization header of one request; a retry needs a new one.
    public static string Authorization(string keyId, string secret, string method, string target, byte[] body)
    {
        var random = new byte[16];
        using (var source = RandomNumberGenerator.Create()) source.GetBytes(random);
        string scheme = "KM1-HMAC-SHA256", nonce = BitConverter.ToString(random).Replace("-", "").ToLowerInvariant();
        string timestamp = DateTimeOffset.UtcNow.ToUnixTimeSeconds().ToString();
        string signature = SignHmac(secret, StringToSign(scheme, timestamp, nonce, keyId, method, target, body));
        return $"{scheme} key_id=\"{keyId}\",timestamp=\"{timestamp}\",nonce=\"{nonce}\",signature=\"{signature}\"";
    }

    // Here the secret is decoded: base64 after whsec_.
    public static string WebhookSignature(string secret, string id, string timestamp, byte[] body)
    {
        byte[] key = Convert.FromBase64String(secret.Substring("whsec_".Length));
        return "v1," + Hmac(key, Encoding.UTF8.GetBytes($"{id}.{timestamp}.").Concat(body).ToArray());
    }

    // Headers with lower-case names, body as the bytes received. While a secret is rotated, several signatures come.
    public static bool VerifyWebhook(string secret, IDictionary<string, string> headers, byte[] body, long now)
    {
        string timestamp = headers["webhook-timestamp"];
        long seconds;
        if (!long.TryParse(timestamp, out seconds) || Math.Abs(now - seconds) > 300) return false;
        string expected = WebhookSignature(secret, headers["webhook-id"], timestamp, body);
        bool found = false;
        foreach (string given in headers["webhook-signature"].Split(' ')) found |= SameText(expected, given);
        return found;
    }

    // In constant time. (On .NET 6 and later CryptographicOperations.FixedTimeEquals does it.)
    static bool SameText(string one, string other)
    {
        int different = one.Length ^ other.Length;
        for (int n = 0; n < one.Length && n < other.Length; n++) different |= one[n] ^ other[n];
        return different == 0;
    }

    // target is signed and sent as it is: percent-encode the query before, keep the path plain.
    static void Send(string method, string target, byte[] body)
    {
        using (var client = new HttpClient(new HttpClientHandler { AllowAutoRedirect = false }) { Timeout = TimeSpan.FromSeconds(30) })
        using (var request = new HttpRequestMessage(new HttpMethod(method), Environment.GetEnvironmentVariable("KAMENG_BASE_URL") + target))
        {
            string header = Authorization(
                Environment.GetEnvironmentVariable("KAMENG_KEY_ID"), Environment.GetEnvironmentVariable("KAMENG_SECRET"), method, target, body);
            request.Headers.TryAddWithoutValidation("Authorization", header);
            if (body.Length > 0)
            {
                request.Content = new ByteArrayContent(body);
                request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
            }
            using (var response = client.SendAsync(request).GetAwaiter().GetResult())
            {
                Console.WriteLine($"{(int)response.StatusCode} {response.Content.ReadAsStringAsync().GetAwaiter().GetResult()}");
            }
        }
    }

    static int PrintVectors()
    {
        string secret = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA", keyId = "ak_test_01JD0000000000000000000001";
        byte[] body = Encoding.UTF8.GetBytes(
            "{\"merchant_order_no\":\"PO-20261122-0001\",\"sku\":\"mobile-cn-100\",\"quantity\":1,\"target\":\"13800138000\"}");
        string target = "/v1/orders?limit=20&status=succeeded&cursor=abc%3D";
        Console.WriteLine("post hmac " + SignHmac(secret, StringToSign(
            "KM1-HMAC-SHA256", "1795350000", "b7f3c1d2e4a5968778695a4b3c2d1e0f", keyId, "POST", "/v1/orders", body)));
        Console.WriteLine("get hmac " + SignHmac(secret, StringToSign(
            "KM1-HMAC-SHA256", "1795350001", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", keyId, "GET", target, new byte[0])));

        string whsec = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        string text = "{\"id\":\"evt_01JD0000000000000000000042\",\"type\":\"order.succeeded\",\"timestamp\":\"2026-11-22T11:44:59Z\","
            + "\"data\":{\"id\":\"ord_01JD0000000000000000000009\",\"version\":4}}";
        byte[] webhook = Encoding.UTF8.GetBytes(text);
        var headers = new Dictionary<string, string>
        {
            { "webhook-id", "evt_01JD0000000000000000000042" },
            { "webhook-timestamp", "1795350300" },
            { "webhook-signature", "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A=" },
        };
        Console.WriteLine("webhook " + WebhookSignature(whsec, headers["webhook-id"], "1795350300", webhook));
        bool verified = VerifyWebhook(whsec, headers, webhook, 1795350301)
            && !VerifyWebhook(whsec, headers, Encoding.UTF8.GetBytes(text + " "), 1795350301)
            && !VerifyWebhook(whsec, headers, webhook, 1795350601);
        if (!verified) return 1;
        Console.WriteLine("webhook verified");
        return 0;
    }

    public static int Main(string[] args)
    {
        Console.OutputEncoding = new UTF8Encoding(false);
        if (args.Length < 2) return PrintVectors();
        Send(args[0], args[1], args.Length > 2 ? Encoding.UTF8.GetBytes(args[2]) : new byte[0]);
        return 0;
    }
}
