"""From a user's own pictures to meshes on disk: recovery, camera, pictures, files, viewer, ONNX."""
