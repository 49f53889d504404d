"""kameng_api: an open distribution hub (卡盟) for virtual goods. Start reading at `docs/concepts.md`."""

__version__ = "0.1.0"
