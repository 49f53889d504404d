"""The connected suppliers of one process: a channel's sealed settings turned into something that can be called."""

from urllib.parse import urljoin

from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Channel
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.http import Client
from kameng_api.suppliers.port import Supplier
from kameng_api.suppliers.registry import get_adapter
from kameng_api.suppliers.transport import Transport


class Connections:
    """Connects a channel at its first use, and again when its settings have changed."""

    def __init__(self, keyring: Keyring, client: Client, *, base_url: str, timeout_s: float) -> None:
        self._keyring = keyring
        self._client = client
        self._transport = Transport(client, longest_s=timeout_s)
        self._base_url = base_url
        self._connected: dict[str, tuple[bytes, Supplier]] = {}
        self._callback_urls: dict[bytes, str] = {}

    def of(self, channel: Channel) -> Supplier:
        """The supplier behind a channel.

        Raises AdapterNotFound (LookupError), CryptoError, or ValueError for settings that do not fit and for a simulated supplier behind a live
        channel: real money never buys what nobody delivers, whatever was configured.
        """
        known = self._connected.get(channel.channel_id)
        if known is not None and known[0] == channel.settings_sealed:
            return known[1]
        adapter = get_adapter(channel.adapter)
        if adapter.simulated and channel.environment != "test":
            raise ValueError("a simulated supplier serves test channels only")
        settings = adapter.settings.model_validate_json(catalog.open_settings(self._keyring, channel))
        supplier = adapter.connect(settings, self._transport.send)
        self._connected[channel.channel_id] = (channel.settings_sealed, supplier)
        return supplier

    def callback_url(self, channel: Channel) -> str:
        """Where this channel's supplier calls us back; the last part is a secret."""
        url = self._callback_urls.get(channel.callback_token_sealed)
        if url is None:
            token = catalog.open_callback_token(self._keyring, channel)
            url = urljoin(self._base_url, f"/callbacks/{token}")
            self._callback_urls[channel.callback_token_sealed] = url
        return url

    async def close(self) -> None:
        """Let go of the open connections."""
        await self._client.aclose()
