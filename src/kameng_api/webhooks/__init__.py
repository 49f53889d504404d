"""Telling merchants, until they have heard."""
