"""A small shop with Flask: python flask_app.py (pip install flask ./sdk/python). What it does stands in shop.py."""

import os

from flask import Flask, Response, jsonify, request
from shop import Shop

from kameng import WebhookRefused

app = Flask(__name__)
shop = Shop.from_env()


@app.post("/orders")
def buy() -> tuple[Response, int]:
    wanted = request.get_json()
    number = shop.buy(wanted["sku"], wanted.get("quantity", 1), wanted.get("target"))
    return jsonify(shop.look(number)), 201


@app.get("/orders")
def look() -> tuple[Response, int]:
    found = shop.look(request.args["merchant_order_no"])
    return (jsonify(found), 200) if found is not None else (jsonify({"error": "no such order"}), 404)


@app.post("/webhooks/kameng")
def hear() -> tuple[str, int]:
    try:
        shop.hear(dict(request.headers), request.get_data())  # the raw bytes, not request.json
    except WebhookRefused:
        return "", 400
    return "", 204


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), threaded=True)
