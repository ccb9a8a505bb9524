"""Six questions about a network's masks, and what an answer is: yes, no or cannot tell, with the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from attnet.base.intervals import Interval
from attnet.base.words import table

YES, NO, CANNOT_TELL = "yes", "no", "cannot tell"
DOES_NOT_APPLY = "does not apply"  # masks without places are asked for places


@dataclass(frozen=True)
class Question:
    """What is asked, in what it is measured, and the smallest difference that counts, in the same units."""

    words: str
    measure: str
    least: float
    answers: Mapping[str, str]


QUESTIONS = {
    "learned": Question(
        "Do the masks depend on what was learned?",
        "Top-1 (%) of a linear probe that sees nothing but the masks",
        3.0,
        {
            YES: "the class can be read from them better than from the masks of untrained networks or from colours",
            NO: "the class can be read from the masks of an untrained network, or from colours, as well",
            CANNOT_TELL: "the class can be read from them hardly better than from those of an untrained network",
        },
    ),
    "object": Question(
        "Do they find the object better than anything without what was learned?",
        "AUROC",
        0.02,
        {
            YES: "they find it better than the image alone or an untrained network tells",
            NO: "what needs no trained network finds it as well",
            CANNOT_TELL: "they find it hardly better than what needs no trained network",
        },
    ),
    "needed": Question(
        "Does the network need its masks at all?",
        "Top-1 (%)",
        1.0,
        {
            YES: "without what they see in the image, be it at their kindest replacement, predictions get worse",
            NO: "something that knows nothing of the image does as well in their place",
            CANNOT_TELL: "something that knows nothing of the image does about as well in their place",
        },
    ),
    "places": Question(
        "Does it need their places?",
        "Top-1 (%)",
        1.0,
        {
            YES: "with the same gains at other positions, or at all alike, predictions get worse",
            NO: "the same gains at other positions, or at all alike, do as well",
            CANNOT_TELL: "the same gains at other positions, or at all alike, do about as well",
        },
    ),
    "pixels": Question(
        "Do they say which pixels matter?",
        "ROAD: probability kept without the least important pixels, less without the most important",
        0.02,
        {
            YES: "what they call important is missed more than what any control calls so",
            NO: "a control that knows nothing of the network says as much",
            CANNOT_TELL: "what they call important is missed hardly more than what a control calls so",
        },
    ),
    "polarity": Question(
        "Do they push the way they claim?",
        "share of images whose class loses with the most important fifth of the pixels",
        0.05,
        {
            YES: "taking away what they call important lowers the class more often than with any control",
            NO: "taking away what a control calls important lowers the class as often",
            CANNOT_TELL: "taking away what they call important lowers the class hardly more often than with a control",
        },
    ),
}


@dataclass(frozen=True)
class Answer:
    """One question's answer.

    `claim` and `control` are the masks' own value and the strongest control's, by name; `difference` is the first less
    the second, paired image by image. `controls` are all of them; `beside` is what is shown and no control, as
    Grad-CAM, which is of the trained network itself. Where nothing could be measured, or the question does not apply to
    masks of this shape, `reason` says why.
    """

    question: str
    verdict: str
    claim: tuple[str, Interval] | None = None
    control: tuple[str, Interval] | None = None
    difference: Interval | None = None
    controls: Mapping[str, Interval] = field(default_factory=dict)
    beside: Mapping[str, Interval] = field(default_factory=dict)
    reason: str = ""

    @property
    def sentence(self) -> str:
        """In plain words, with its numbers."""
        asked = QUESTIONS[self.question]
        start = f"{self.verdict[0].upper()}{self.verdict[1:]}: {self.reason or asked.answers[self.verdict]}"
        if self.difference is None:
            return f"{start}."
        (claim, mine), (control, other), gap = self.claim, self.control, self.difference
        digits = 1 if "%" in asked.measure else 3
        numbers = f"{claim} {mine.mean:.{digits}f}, {control} {other.mean:.{digits}f}"
        gap = f"{gap.mean:+.{digits}f} ({gap.low:+.{digits}f} to {gap.high:+.{digits}f})"
        return f"{start} ({asked.measure}: {numbers}; difference {gap}, of which {asked.least:g} would count)."


@dataclass(frozen=True)
class Verdict:
    """The six answers, by question, for so many images (`faithful` of them for ROAD)."""

    answers: Mapping[str, Answer]
    images: int
    faithful: int

    def table(self) -> str:
        """Markdown: a row a question."""
        header = ("question", "answer", "masks", "strongest control", "difference (95 %)")
        rows = []
        for key, answer in self.answers.items():
            cells = ("", "", answer.reason)
            if answer.difference is not None:
                gap = answer.difference
                claim, control = (f"{interval} {name}" for name, interval in (answer.claim, answer.control))
                cells = (claim, control, f"{gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})")
            rows.append((QUESTIONS[key].words, f"**{answer.verdict}**", *cells))
        return table(header, rows, words=(0, 1, 2, 3, 4))

    def page(self) -> str:
        """Plain text: each question with its sentence."""
        return "\n".join(f"{QUESTIONS[key].words}\n  {answer.sentence}" for key, answer in self.answers.items())

    def to_json(self) -> dict[str, object]:
        """For a record."""
        answers = {
            key: {"question": QUESTIONS[key].words, "measure": QUESTIONS[key].measure, "least": QUESTIONS[key].least}
            | {"sentence": answer.sentence}
            | {name: value for name, value in asdict(answer).items() if name != "question"}
            for key, answer in self.answers.items()
        }
        return {"images": self.images, "images_for_road": self.faithful, "answers": answers}


def decide(difference: Interval, least: float) -> str:
    """yes: certainly more than nothing, and by what counts. no: certainly less than what counts. Else: cannot tell."""
    if difference.low > 0 and difference.mean >= least:
        return YES
    return NO if difference.high < least else CANNOT_TELL
