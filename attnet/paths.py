"""Where relative paths start: the repository root, wherever a kernel or a shell was started."""

from __future__ import annotations

import os
from pathlib import Path


def repository_root() -> Path:
    """Where relative paths start: the checkout that holds this package, else the working directory."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def resolve_path(path: str | Path) -> Path:
    """An absolute path; a relative one starts at the repository root, wherever the kernel was started."""
    return repository_root() / Path(path).expanduser()


def relative_to_root(path: Path) -> str:
    """A path as a user would type it: relative where it lies below the repository root."""
    root = repository_root()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def keep_compiled_code() -> None:
    """Let torch.compile keep its code under runs/.compiled, where it outlives a restart of the machine, unlike /tmp."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(resolve_path("runs/.compiled")))
