"""Parity with the released implementations, on stored cases (`goldens.py` says where they lie)."""
