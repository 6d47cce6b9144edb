"""One method per file. A package, so that no installed one of this name takes its place."""
