"""Reading of OpenMMLab configs and construction of their models, for the commands that take a CONFIG."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .errors import ReportedError
from .extras import explain, importing

if TYPE_CHECKING:
    from mmengine.config import Config


class ConfigError(ReportedError, ValueError):
    """A config cannot be read, or its model cannot be built. The message names the config and the reason."""

    exit_status = 2


def read_config(path: str | Path) -> Config:
    """Read a config that has a model. The data preprocessor of mmpretrain's configs becomes a part of the model.

    Raises:
        ConfigError: The config is missing, cannot be read or has no model.
        MissingPackageError: mmengine is not installed.
    """
    with importing("backbones"):
        from mmengine.config import Config
    if not Path(path).is_file():
        raise ConfigError(f"config {path} is not a file")
    with _explained(f"config {path} cannot be read"):
        settings = Config.fromfile(path)
    if not isinstance(settings.get("model"), dict):
        raise ConfigError(f"config {path} has no model")
    if "data_preprocessor" in settings:
        settings.model.setdefault("data_preprocessor", settings.data_preprocessor)
    return settings


def build_model(settings: Config, initialise: bool = False) -> nn.Module:
    """Build the model of a config in the config's scope.

    Args:
        settings: Config, as returned by :func:`read_config`.
        initialise: Whether to initialise the parameters as for training, which may load pretrained ones. Defaults to
            False.

    Raises:
        ConfigError: The scope is not that of an installed toolbox, or the model cannot be built or initialised.
    """
    from mmengine.registry import MODELS, DefaultScope

    scope = settings.get("default_scope") or "mmengine"
    if not isinstance(scope, str) or (scope not in MODELS.children and importlib.util.find_spec(scope) is None):
        raise ConfigError(f"default_scope of config {settings.filename} must name an installed toolbox, got {scope!r}")
    with DefaultScope.overwrite_default_scope(scope):
        with _explained(f"the model of config {settings.filename} cannot be built"):
            model: Any = MODELS.build(settings.model)
        if initialise and hasattr(model, "init_weights"):
            with _explained(f"the model of config {settings.filename} cannot be initialised"):
                model.init_weights()
    return model


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Raise :class:`ConfigError` for every error: configs are code and name code, which may fail in any way."""
    try:
        yield
    except Exception as error:
        reason = explain(error) if isinstance(error, ImportError) else None
        if reason is None:
            text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
            reason = text.partition("\n")[0].partition(". Please check")[0][:1000]
            if not reason or not isinstance(error, (ReportedError, KeyError, TypeError, ValueError)):
                reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        raise ConfigError(f"{failure}: {reason.rstrip('.')}") from error
