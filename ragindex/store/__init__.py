"""The store: one directory whose SQLite catalogue is the truth and whose FAISS and tantivy indexes are disposable
snapshots.
"""
