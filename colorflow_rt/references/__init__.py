"""Persistent, named sets of reference pictures."""

from colorflow_rt.references.records import AddReport, Hit, Problem, RebuildReport, Reference
from colorflow_rt.references.sets import ReferenceSet

__all__ = ["AddReport", "Hit", "Problem", "RebuildReport", "Reference", "ReferenceSet"]
