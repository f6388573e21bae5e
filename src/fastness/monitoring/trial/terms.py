"""On what terms a candidate takes over: how much worse it may be, and how sure that must be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastness.core.errors import BadInput


@dataclass(frozen=True)
class Measure:
    """Something that is measured of a request that both versions answered; the larger the worse the candidate.

    Attributes:
        low, high: what it can be.
        said: what it is, in words.
        sliced: whether also of slices.
        relative: whether a slice is held against the rest of the items instead of against a number.
    """

    low: float
    high: float
    said: str
    sliced: bool = True
    relative: bool = False


ERRORS, LATENCY, WRONG = "errors", "latency", "wrong"
MEASURES = {
    LATENCY: Measure(-1.0, 1.0, "logarithm of how many times as long it took, at most a factor of e", sliced=False),
    "disagreement": Measure(0.0, 1.0, "share of the nearest items that are not those of production", relative=True),
    "distance": Measure(
        0.0, 0.5, "1 less the cosine to production's embedding, where both have one space; 0.5 at most"
    ),
    "strangeness": Measure(-0.5, 0.5, "how much further from what it knows it places an item, as a rank; 0.5 at most"),
    "abstained": Measure(-1.0, 1.0, "share of items it says nothing of, less production's"),
    WRONG: Measure(-1.0, 1.0, "share of items it is wrong of, less production's"),
}


QUALITY = ("disagreement", "distance", "strangeness", WRONG)
"""Measures of which there must be one before anything is promoted: the others say nothing of what is answered."""


class Limit(BaseModel):
    """How much worse a candidate may be by one measure.

    Attributes:
        tolerated: more than this is harm, and ends the trial as soon as it is shown.
        margin: less than this must be shown before it is promoted.
        slice_tolerated, slice_margin: of a slice; default: ``tolerated``, and twice the margin.
    """

    model_config = ConfigDict(extra="forbid")

    tolerated: float = Field(ge=0)
    margin: float = Field(gt=0)
    slice_tolerated: float | None = Field(None, ge=0)
    slice_margin: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Limit:
        if self.tolerated >= self.margin or self.of_slices[0] >= self.of_slices[1]:
            raise ValueError("what is tolerated must be less than the margin, else nothing could be decided")
        return self

    @property
    def of_slices(self) -> tuple[float, float]:
        """What is tolerated of a slice, and its margin."""
        tolerated = self.tolerated if self.slice_tolerated is None else self.slice_tolerated
        return tolerated, 2 * self.margin if self.slice_margin is None else self.slice_margin


# Two trainings of a small encoder that differ by their seed alone have 1 in 6 of the nearest ten in common; by topic
# that differs by 0.04, and strangeness by 0.07. An export has all but 1 in 80.
_LIMITS = {
    ERRORS: Limit(tolerated=0.001, margin=0.005),
    LATENCY: Limit(tolerated=0.05, margin=0.15),
    "disagreement": Limit(tolerated=0.9, margin=0.95, slice_tolerated=0.1, slice_margin=0.25),
    "distance": Limit(tolerated=0.02, margin=0.05),
    "strangeness": Limit(tolerated=0.05, margin=0.1, slice_tolerated=0.1, slice_margin=0.2),
    "abstained": Limit(tolerated=0.02, margin=0.05),
    WRONG: Limit(tolerated=0.01, margin=0.03),
}


class Terms(BaseModel):
    """Terms of a trial.

    Attributes:
        level: chance that a candidate that is no worse than tolerated is ever sent away, over all measures, all slices
            and all the time.
        sure: chance that one that is worse than a margin is promoted.
        least: requests answered by both before it is promoted.
        most: after so many the trial is undecided: the candidate stays where it is, and is still watched for harm.
        slices: how many are watched, the first that come; the level is divided among them.
        share: of the requests that a slice must be in to be waited for; of smaller ones harm is seen, but safety need
            not be shown.
        limits: by measure, where they are not the default: of ``errors`` a difference of rates, of ``latency`` the
            share more that it may take, of others see `MEASURES`.
    """

    model_config = ConfigDict(extra="forbid")

    level: float = Field(0.02, gt=0, lt=0.5)
    sure: float = Field(0.05, gt=0, lt=0.5)
    least: int = Field(200, ge=1)
    most: int = Field(5000, ge=1)
    slices: int = Field(32, ge=1, le=1000)
    share: float = Field(0.02, gt=0, le=1)
    limits: dict[str, Limit] = {}

    @model_validator(mode="after")
    def _known(self) -> Terms:
        unknown = set(self.limits) - set(_LIMITS)
        if unknown:
            raise ValueError(f"limits: no measure '{min(unknown)}'; there are {', '.join(_LIMITS)}")
        return self

    def limit(self, measure: str) -> Limit:
        """Return the limit of a measure."""
        return self.limits.get(measure, _LIMITS[measure])

    def bounds(self, measure: str, slice: str) -> tuple[float, float]:
        """Return what is tolerated and the margin, on the scale of the measure."""
        limit = self.limit(measure)
        found = limit.of_slices if slice else (limit.tolerated, limit.margin)
        return (math.log1p(found[0]), math.log1p(found[1])) if measure == LATENCY else found


def read_terms(path: Path) -> Terms:
    """Read terms from a YAML file.

    Raises:
        BadInput: the file cannot be read, or says something that no terms say; names the field.
    """
    try:
        return Terms.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give terms, e.g. limits: {{latency: {{…}}}}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: no YAML ({' '.join(str(error).split())[:200]})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path}: {place or 'terms'}: {first['msg']}; see docs/serving.md") from None
