"""A small shop with Django: python django_app.py (pip install django ./sdk/python), or any WSGI server. What it does stands in shop.py."""

import json
import os
import secrets
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from shop import Shop

from kameng import WebhookRefused

settings.configure(SECRET_KEY=secrets.token_hex(), ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__)
django.setup()
shop = Shop.from_env()


@csrf_exempt
def orders(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        wanted = json.loads(request.body)
        number = shop.buy(wanted["sku"], wanted.get("quantity", 1), wanted.get("target"))
        return JsonResponse(shop.look(number), status=201)
    found = shop.look(request.GET["merchant_order_no"])
    return JsonResponse(found) if found is not None else HttpResponse(status=404)


@csrf_exempt  # the signature says more than a CSRF token could
def hear(request: HttpRequest) -> HttpResponse:
    try:
        shop.hear(request.headers, request.body)
    except WebhookRefused:
        return HttpResponse(status=400)
    return HttpResponse(status=204)


urlpatterns = [path("orders", orders), path("webhooks/kameng", hear)]
application = get_wsgi_application()


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application, Server, Quiet) as server:
        server.serve_forever()
