"""Every figure of the workbench; each is one call.

A function returns a matplotlib Figure and shows nothing itself: a notebook displays the value of its last line,
a script calls `savefig`. Names come from the modules' own `__all__`; the explorer, which needs widgets, stays outside.
"""

from attnet.plots.anatomy import *  # noqa: F403
from attnet.plots.architecture import *  # noqa: F403
from attnet.plots.contrasts import *  # noqa: F403
from attnet.plots.figure import *  # noqa: F403
from attnet.plots.growth import *  # noqa: F403
from attnet.plots.learning import *  # noqa: F403
from attnet.plots.logged import *  # noqa: F403
from attnet.plots.masks import *  # noqa: F403
from attnet.plots.measures import *  # noqa: F403
from attnet.plots.runs import *  # noqa: F403
from attnet.plots.steps import *  # noqa: F403
from attnet.plots.training import *  # noqa: F403
from attnet.plots.verdict import *  # noqa: F403
from attnet.plots.view import *  # noqa: F403
from attnet.plots.viewer.stills import *  # noqa: F403
from attnet.plots.viewer.theatre import *  # noqa: F403
