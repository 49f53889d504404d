"""A small shop with FastAPI: python fastapi_app.py (pip install fastapi uvicorn ./sdk/python). What it does stands in shop.py."""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from shop import Shop

from kameng import WebhookRefused

app = FastAPI()
shop = Shop.from_env()


class Wanted(BaseModel):
    sku: str
    quantity: int = 1
    target: str | None = None


@app.post("/orders", status_code=201)
def buy(wanted: Wanted) -> dict[str, Any] | None:  # not async: FastAPI runs it in a thread, where it may wait for the hub
    return shop.look(shop.buy(wanted.sku, wanted.quantity, wanted.target))


@app.get("/orders")
def look(merchant_order_no: str) -> dict[str, Any]:
    found = shop.look(merchant_order_no)
    if found is None:
        raise HTTPException(404)
    return found


@app.post("/webhooks/kameng")
async def hear(request: Request) -> Response:
    body = await request.body()  # the raw bytes, before any model
    try:
        await run_in_threadpool(shop.hear, request.headers, body)
    except WebhookRefused:
        return Response(status_code=400)
    return Response(status_code=204)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), log_level="warning")
