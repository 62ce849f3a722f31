"""ragindex inside other frameworks: each module is a thin layer over `Index.records` and needs its framework's extra.

`langchain`, `llama_index`; Haystack finds its own in `haystack_integrations`. Nothing is imported here.
"""
