"""From a folder to a committed store: plan, load, cut, embed, commit."""

from ragindex.ingest.plan import MEMORY, Plan, Scope, document_name, make_plan, storable_name
from ragindex.ingest.progress import Progress, Silent
from ragindex.ingest.run import IngestRun, preview

__all__ = [
    "MEMORY",
    "IngestRun",
    "Plan",
    "Progress",
    "Scope",
    "Silent",
    "document_name",
    "make_plan",
    "preview",
    "storable_name",
]
