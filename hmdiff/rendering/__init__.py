"""Pictures of meshes on the CPU, and everything that varies in them, from a seed."""
