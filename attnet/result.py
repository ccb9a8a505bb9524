"""What a run leaves behind, and reading it back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from attnet.errors import AttnetError
from attnet.paths import resolve_path


@dataclass(frozen=True)
class Result:
    """A finished run, as in its result.json.

    `top1` (per cent) is the best epoch's, whose weights are best.pt; `last_top1` and `test_loss` (nats) are the
    last epoch's; `fps` is the median over epochs in images/s (None when nothing was trained). `top1_flip` is the last
    epoch's with logits averaged over image and mirror image, where `test_flip` asked for it. `memorisation` is what
    the last epoch's network says of wrongly labelled training images (see attnet.noise), where there are some.
    """

    top1: float
    fps: float | None
    epochs: int
    amp: str
    device: str
    batch_size: int
    model: str
    dataset: str
    last_top1: float
    per_class: dict[str, float]
    confusion: list[list[int]]
    peak_memory: int
    skipped_steps: int
    environment: dict[str, object]
    test_loss: float | None = None  # None in records from before it was kept
    top1_flip: float | None = None
    memorisation: dict[str, float] | None = None
    output_dir: Path = Path()
    history: list[dict] = field(default_factory=list)

    @property
    def weights(self) -> Path:
        """The weights of the best epoch; of an evaluation alone (is_train=False), those that were evaluated."""
        best = self.output_dir / "best.pt"
        if best.exists():
            return best
        return resolve_path(json.loads((self.output_dir / "config.json").read_text())["pretrained"])

    def to_json(self) -> dict[str, object]:
        """The content of result.json; the history is metrics.jsonl."""
        return {name: value for name, value in vars(self).items() if name not in ("output_dir", "history")}

    @classmethod
    def load(cls, output_dir: str | Path) -> Result:
        """Read a finished run's folder; AttnetError names it when it holds something else."""
        folder = Path(output_dir)
        try:
            content = json.loads((folder / "result.json").read_text())
            lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
            return cls(**content, output_dir=folder, history=[json.loads(line) for line in lines])
        except (OSError, ValueError, TypeError) as error:
            raise AttnetError(f"{folder}: not a finished run's folder ({error})") from error
