"""`kameng demo`: the guided tour, which drives the whole house from outside, over HTTP, as operators and merchants do."""

from kameng_api.demo.tour import run

__all__ = ["run"]
