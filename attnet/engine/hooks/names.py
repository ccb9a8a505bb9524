"""What the parameter `log` may say, known without importing what it names."""

from __future__ import annotations

import importlib.util

from attnet.base.errors import ConfigError, nearest

# Name -> package whose presence it needs, and its class here.
NAMED = {"tensorboard": ("tensorboard", "attnet.engine.hooks.tensorboard:TensorBoard")}


def check_log(log: str) -> None:
    """ConfigError unless `log` is empty, one of ours whose package is here, or package.module:name; imports nothing."""
    if log in NAMED:
        package, _ = NAMED[log]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"log={log}: its writer is not installed; pip install {package}")
    elif log and not is_own_hook(log):
        raise ConfigError(f"log={log!r}: {nearest(log, NAMED)} or name a hook of your own as package.module:name")


def is_own_hook(log: str) -> bool:
    """Whether a value of the parameter `log` names code of the user's."""
    return ":" in log.strip(":")
