"""Suppliers that a YAML file alone connects: a form, JSON, multipart or XML interface, described and not programmed."""

from kameng_api.suppliers.adapters.declared.loading import SHIPPED, load_folder

__all__ = ["SHIPPED", "load_folder"]
