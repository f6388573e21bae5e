"""A pipeline in one command: from data to a released version, by the project's own functions, resumable at any point.

`Plan` is what a YAML file says of it; `steps` are what it is made of, each a function that says on what it depends and
one that does it; `Job` does them in order, leaves out what was done, and writes down what happened in ``ci.json``.
"""

from fastness.ci.job import Job
from fastness.ci.plan import Plan

__all__ = ["Job", "Plan"]
