"""From a folder to a committed store: plan, load, cut, embed, commit."""

from ragindex.ingest.plan import Plan, Scope, document_name, make_plan
from ragindex.ingest.progress import Progress, Silent
from ragindex.ingest.run import IngestRun, preview

__all__ = ["IngestRun", "Plan", "Progress", "Scope", "Silent", "document_name", "make_plan", "preview"]
