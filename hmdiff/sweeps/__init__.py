"""Sweeps: one parameter, several values, one method, validation images alone."""
