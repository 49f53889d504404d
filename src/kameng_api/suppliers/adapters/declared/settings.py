"""The settings of a declared supplier as a model of their own, so that the desk shows a form for it as for any adapter."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, create_model, field_validator

from kameng_api.suppliers.adapters.declared.form import SupplierFile

ALWAYS: Final = frozenset({"base_url", "timeout_s"})
_URL: Final = r"^https?://[^/?#\s]+(/[^?#\s]*)?$"


class DeclaredSettings(BaseModel):
    """What every channel of a declared supplier has. `timeout_s` is for one call in total."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=_URL, max_length=300)
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")


def build_settings(supplier: SupplierFile) -> type[DeclaredSettings]:
    """The pydantic model of one file: its settings in its order, secrets as SecretStr."""
    fields: dict[str, Any] = {
        "base_url": (str, Field(default=supplier.base_url if supplier.base_url else ..., pattern=_URL, max_length=300)),
        "timeout_s": (float, Field(default=float(supplier.timeout_s), gt=0, le=60)),
    }
    for name, setting in supplier.settings.items():
        words: dict[str, Any] = {"title": setting.label, "json_schema_extra": {"title_zh": setting.label_zh or setting.label}}
        shortest = setting.min_length or (8 if setting.secret else 1)
        kind: Any = SecretStr if setting.secret else Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
        if setting.optional:
            fields[name] = (kind | None, Field(default=None, max_length=1000, **words))
        else:
            default = ... if setting.default is None else setting.default
            fields[name] = (kind, Field(default=default, min_length=shortest, max_length=4000, **words))
    model: type[DeclaredSettings] = create_model(f"{supplier.name.title().replace('_', '')}Settings", __base__=DeclaredSettings, **fields)
    return model


def texts_of(settings: DeclaredSettings) -> dict[str, str]:
    """Every setting as text, secrets opened: for templates only, never shown."""
    found: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            found[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return found


def secrets_of(settings: DeclaredSettings) -> tuple[str, ...]:
    """The opened secrets, to be masked wherever something is shown."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    return tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr) and value.get_secret_value())
