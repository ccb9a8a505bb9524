"""A run under a notebook's cell, from its folder alone: picture, state, ranks, log, and a button that stops it."""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets

from attnet.base.errors import AttnetError
from attnet.base.pages import Page, html_table
from attnet.base.progress import in_notebook, kernel_shell, somebody_looks
from attnet.base.watching import Sight
from attnet.base.words import duration, folded
from attnet.engine.result import standing
from attnet.engine.status import words
from attnet.engine.status.watched import Watched, WatchedRuns
from attnet.plots.figure import GREEN, GREY, ORANGE, RED
from attnet.plots.learning import plot_learning

EVERY = 2.0  # seconds between looks
SHARE = 0.1  # of this kernel's time that pictures may take; the run is in another
LOG = 30  # lines
_COLOURS = {"running": GREEN, "begins": GREEN, "finished": GREEN, "stopped": ORANGE, "died": RED}


def view(what: Watched | WatchedRuns) -> WatchView | Still:
    """What follows it while somebody looks; else one look at it."""
    what.look()
    if in_notebook() and somebody_looks():
        return WatchView(what)
    log = folded("the last lines of log.txt", _log(what)) if _log(what) else ""
    return Still("\n".join([_head(what), _picture(what), _ranks(what), log]), text="\n".join(what.frame(80, 40)))


@dataclass(frozen=True, repr=False)
class Still(Page):
    """One look: as HTML in a notebook, as text elsewhere."""

    text: str = ""

    def __repr__(self) -> str:
        return self.text


class WatchView(widgets.VBox):
    """Follows a run, or the runs of a folder, in a thread until they end, a cell is interrupted, or `close` is called.

    What has not changed is not sent again, and the log stays unfolded.
    """

    def __init__(self, what: Watched | WatchedRuns) -> None:
        self.what, self.drawn, self.over, self.shell = what, None, threading.Event(), kernel_shell()
        super().__init__()
        self.head, self.ranks, self.lines = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.picture, self.note = widgets.HTML(), widgets.HTML()
        fold = widgets.Accordion([self.lines], titles=("the last lines of log.txt",), selected_index=None)
        fold.layout.display = "none" if isinstance(what, WatchedRuns) else ""
        whole = "Stop the sweep" if isinstance(what, WatchedRuns) else "Stop the run"
        self.stop = widgets.Button(description=whole, icon="stop", tooltip="it saves itself first")
        self.sure = widgets.Button(description="Yes, save and stop", button_style="danger")
        self.no = widgets.Button(description="No, go on")
        for button, done in ((self.stop, self._ask), (self.sure, self._stop), (self.no, self._ask_no_more)):
            button.on_click(lambda _, done=done: done())
        self.buttons = widgets.HBox([self.stop, self.note])
        self.children = [self.head, self.picture, self.ranks, fold, self.buttons]
        self.add_class("attnet-watch")
        self._show()
        if self.shell is not None:
            self.shell.events.register("post_run_cell", self._after_a_cell)
        threading.Thread(target=self._follow, name="attnet-watch", daemon=True).start()

    def close(self) -> None:
        """Follow it no longer; the run goes on."""
        self._leave("")
        super().close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self.over.wait(EVERY):
            try:
                begun = time.perf_counter()
                self.what.look()
                self._show()
            except Exception as error:  # whatever it is, such as a folder that was taken away: say it, and end
                self._leave(f"no longer followed: {error}")
                return
            if not self.what.is_at_work:
                self._leave("")
                return
            self.over.wait((time.perf_counter() - begun) * (1 / SHARE - 1))

    def _show(self) -> None:
        self.head.value, self.ranks.value, self.lines.value = _head(self.what), _ranks(self.what), _log(self.what)
        if (seen := _worth_a_picture(self.what)) != self.drawn:
            self.drawn = seen
            self.picture.value = _picture(self.what)
        self.stop.layout.display = "" if self.what.is_at_work else "none"
        if not self.what.is_at_work:
            self._ask_no_more()

    def _after_a_cell(self, result: object) -> None:
        if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
            self._leave("the kernel was interrupted: no longer followed, the run goes on. Run the cell again to follow")

    def _leave(self, why: str) -> None:
        if not self.over.is_set():
            self.over.set()
            self.note.value = escape(why)
            if self.shell is not None:
                self.shell.events.unregister("post_run_cell", self._after_a_cell)

    def _ask(self) -> None:
        self.note.value = "It saves itself after the step that it is in, and resume goes on from there."
        self.buttons.children = [self.sure, self.no, self.note]

    def _ask_no_more(self) -> None:
        if len(self.buttons.children) > 2:
            self.note.value = ""
            self.buttons.children = [self.stop, self.note]

    def _stop(self) -> None:
        self._ask_no_more()
        try:
            self.note.value = escape(self.what.stop())
        except AttnetError as error:
            self.note.value = escape(str(error))


def _head(what: Watched | WatchedRuns) -> str:
    if isinstance(what, WatchedRuns):
        return f"<b>{escape(words.shown(what.folder))}</b> · {escape(words.summary(what.runs))}"
    status = what.status
    done, colour = 100 * status.share, _COLOURS[status.state]
    lines = [f"<b>{escape(words.title(status))}</b>"]
    lines.append(f'<span style="color:{colour}">●</span> {escape(words.state(status))}')
    lines += [escape(status.why)] if status.why else []
    lines.append(escape(words.pace(status)))
    if status.checkpoint:
        lines[-1] += f" · last checkpoint {duration(status.checkpoint[1])} ago"
    bar = (
        f'<div style="background:#e4e4e4;max-width:800px;height:6px">'
        f'<div style="background:{colour};width:{done:.1f}%;height:6px"></div></div>'
    )
    return f'<div style="line-height:1.5">{"<br>".join(lines)}{bar}</div>'


def _worth_a_picture(what: Watched | WatchedRuns) -> object:
    return None if isinstance(what, WatchedRuns) else (len(what.status.rows), len(what.status.trace), what.status.epoch)


def _picture(what: Watched | WatchedRuns) -> str:
    """The curves as an image; a sentence where there are none."""
    if isinstance(what, WatchedRuns):
        return ""
    status = what.status
    if not (status.rows or status.begun):
        return f'<span style="color:{GREY}">The curves come after the first steps.</span>'
    chance = status.config.get("num_classes")
    try:
        kind = standing(status.config, {}, {})[0]
        figure = plot_learning(Sight(status.rows, (), 0, 1, begun=status.begun), None, chance and 100 / chance, kind)
        png, size = figure._repr_png_()
    except Exception as error:  # figures out of all bounds in a file
        return f"no picture: {escape(f'{type(error).__name__}: {error}')}"
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="loss and Top-1 by epoch" style="max-width:100%" width="{size["width"]}" src="{source}">'


def _ranks(what: Watched | WatchedRuns) -> str:
    if isinstance(what, WatchedRuns):
        return html_table(words.HEADER, words.cells(what.runs, what.folder), words=(0, 2), sortable=False)
    ranks = what.status.ranks
    if len(ranks) < 2:
        now = ranks[0].state if ranks and what.status.state == "running" else "training"
        return "" if now == "training" else escape(f"now: {now}")
    rows = [[r.rank, r.host, r.pid, f"{r.step:,} of {r.steps:,}", r.state] for r in ranks]
    return html_table(("rank", "machine", "process", "step", "state"), rows, words=(1, 4), sortable=False)


def _log(what: Watched | WatchedRuns) -> str:
    if isinstance(what, WatchedRuns):
        return ""
    lines = "\n".join(what.status.log[-LOG:])
    return f'<pre style="white-space:pre-wrap;font-size:12px;line-height:1.3;margin:0">{escape(lines)}</pre>'
