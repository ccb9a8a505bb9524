"""Studies: one question each, a sweep of configurations, the paper's figures beside what was measured.

    record = ablate("residual", seeds=(0, 1, 2), total_epochs=8, train_images=10_000)
    print(ablation_table(record))

`STUDIES` names them: the paper's questions (`paper`) and what the strong recipes consist of (`recipe`). The same from
a shell: `python -m attnet.ablation residual depth --seeds 0,1,2`. `attnet.plots.plot_ablation` draws a record.
"""

from attnet.ablation.record import STUDIES, ablate, findings
from attnet.ablation.tables import ablation_table

__all__ = ["STUDIES", "ablate", "ablation_table", "findings"]
