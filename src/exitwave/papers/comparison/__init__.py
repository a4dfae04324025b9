"""One specimen, every method: the comparison chapter, which follows no paper."""
