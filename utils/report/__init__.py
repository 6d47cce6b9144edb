"""Runs compared: tables, differences, forgetting."""
