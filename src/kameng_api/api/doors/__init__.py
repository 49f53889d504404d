"""Doors (兼容入口): the protocols that merchants' software already speaks, one folder each, mapped to the house's own actions."""
