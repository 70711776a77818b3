"""Data sets: native layouts, rendered stand-ins, crops, and the prepared HDF5 files."""
