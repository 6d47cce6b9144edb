"""What one starts; it alone may import everything. A package, so that no installed one of this name takes its place."""
