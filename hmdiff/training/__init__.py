"""Training of g and the baselines, of the upsampling layers, and of the linear control."""
