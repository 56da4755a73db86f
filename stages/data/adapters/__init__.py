"""One module a published data layout: one function recognises it, one reads its rows."""
