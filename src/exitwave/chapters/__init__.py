"""Run the chapters, keep their results and build the book."""
