"""`Index`: a store, its encoder and its search engine behind one object; the one place that picks backends."""

from ragindex.index.index import Index
from ragindex.index.promotion import Promotion

__all__ = ["Index", "Promotion"]
