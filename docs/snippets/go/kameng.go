// Sign a request and verify a webhook with Go's standard library (Go 1.17 or later).
//
//	go run kameng.go                          prints the signatures of the published test vectors
//	go run kameng.go GET /v1/balance          sends a request; set KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET
//	go run kameng.go POST /v1/orders '{...}'
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// stringToSign is seven lines, each ended by one line feed, the last one too.
func stringToSign(scheme, timestamp, nonce, keyID, method, target string, body []byte) []byte {
	sum := sha256.Sum256(body)
	lines := []string{scheme, timestamp, nonce, keyID, method, target, hex.EncodeToString(sum[:])}
	return []byte(strings.Join(lines, "\n") + "\n")
}

func hmacSHA256(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(nil)
}

// signHMAC takes the secret as it is written, not decoded.
func signHMAC(secret string, text []byte) string {
	return base64.StdEncoding.EncodeToString(hmacSHA256([]byte(secret), text))
}

func signEd25519(seed, text []byte) string {
	return base64.StdEncoding.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(seed), text))
}

// authorization is the header of one request; a retry needs a new one.
func authorization(keyID, secret, method, target string, body []byte) (string, error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	scheme, timestamp, nonce := "KM1-HMAC-SHA256", strconv.FormatInt(time.Now().Unix(), 10), hex.EncodeToString(random)
	signature := signHMAC(secret, stringToSign(scheme, timestamp, nonce, keyID, method, target, body))
	return fmt.Sprintf(`%s key_id="%s",timestamp="%s",nonce="%s",signature="%s"`, scheme, keyID, timestamp, nonce, signature), nil
}

// webhookSignature decodes the secret: base64 after whsec_.
func webhookSignature(secret, id, timestamp string, body []byte) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return "", err
	}
	text := append([]byte(id+"."+timestamp+"."), body...)
	return "v1," + base64.StdEncoding.EncodeToString(hmacSHA256(key, text)), nil
}

// verifyWebhook takes the body as the bytes received. While a secret is rotated, several signatures come.
func verifyWebhook(secret string, headers http.Header, body []byte, now time.Time) bool {
	timestamp := headers.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Unix()-seconds > 300 || seconds-now.Unix() > 300 {
		return false
	}
	expected, err := webhookSignature(secret, headers.Get("webhook-id"), timestamp, body)
	if err != nil {
		return false
	}
	for _, given := range strings.Split(headers.Get("webhook-signature"), " ") {
		if hmac.Equal([]byte(expected), []byte(given)) {
			return true
		}
	}
	return false
}

// send signs and sends target as it is: percent-encode the query before, keep the path plain.
func send(method, target string, body []byte) error {
	header, err := authorization(os.Getenv("KAMENG_KEY_ID"), os.Getenv("KAMENG_SECRET"), method, target, body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, os.Getenv("KAMENG_BASE_URL")+target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", header)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, string(answer))
	return err
}

func printVectors() {
	secret, keyID := "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA", "ak_test_01JD0000000000000000000001"
	body := []byte(`{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}`)
	nonce, target := "b7f3c1d2e4a5968778695a4b3c2d1e0f", "/v1/orders?limit=20&status=succeeded&cursor=abc%3D"
	seed := make([]byte, 32)
	for index := range seed {
		seed[index] = byte(index)
	}
	fmt.Println("post hmac", signHMAC(secret, stringToSign("KM1-HMAC-SHA256", "1795350000", nonce, keyID, "POST", "/v1/orders", body)))
	fmt.Println("post ed25519", signEd25519(seed, stringToSign("KM1-ED25519", "1795350000", nonce, keyID, "POST", "/v1/orders", body)))
	fmt.Println("get hmac", signHMAC(secret, stringToSign("KM1-HMAC-SHA256", "1795350001", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", keyID, "GET", target, nil)))

	whsec := "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	event := []byte(`{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z",` +
		`"data":{"id":"ord_01JD0000000000000000000009","version":4}}`)
	headers := http.Header{}
	headers.Set("webhook-id", "evt_01JD0000000000000000000042")
	headers.Set("webhook-timestamp", "1795350300")
	headers.Set("webhook-signature", "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A=")
	signature, err := webhookSignature(whsec, headers.Get("webhook-id"), headers.Get("webhook-timestamp"), event)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("webhook", signature)
	received, late := time.Unix(1795350301, 0), time.Unix(1795350601, 0)
	tampered := append(append([]byte{}, event...), ' ')
	if !verifyWebhook(whsec, headers, event, received) || verifyWebhook(whsec, headers, tampered, received) ||
		verifyWebhook(whsec, headers, event, late) {
		log.Fatal("the webhook verdicts are wrong")
	}
	fmt.Println("webhook verified")
}

func main() {
	if len(os.Args) < 3 {
		printVectors()
		return
	}
	body := []byte{}
	if len(os.Args) > 3 {
		body = []byte(os.Args[3])
	}
	if err := send(os.Args[1], os.Args[2], body); err != nil {
		log.Fatal(err)
	}
}
