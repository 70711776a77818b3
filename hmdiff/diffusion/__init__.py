"""Human Mesh Diffusion: the forward and reverse processes, the network g, and DAT (Sec. 3 and 4).

Names in the code and symbols in the paper:

=========================  ===================  ====================================================
name                       symbol               meaning
=========================  ===================  ====================================================
``h_0``, ``h_k``, ``h_K``  h_0, h_k, h_K        coarse mesh, noisy mesh at step k, start of the
                                                reverse process; (..., V, 3) in model units
``z``, ``noise``           z, z_k               standard Gaussian noise
``alphas``                 alpha_{0:K}          cumulative signal level, alpha_0 = 1 (A2)
``sigma``                  sigma_k              noise added by one reverse step
``s``                      s, g(h_k, k)         the score of Algorithm 1 (the noise in h_k)
``h0_hat``                 h^_0                 early estimate of h_0 (Eq. 7)
``predict``                g with Eq. 7         maps (h_k, k) to (h0_hat, s)
``image_feature``          f_I                  49 tokens of 128 numbers
``draws``                  u_i, i = 1..N        samples of the prior distribution U
``peak``                   u_c                  the single pose of Table 5
``regressor``              f                    linear mesh-to-pose function (J, V)
``gap``                    D_k                  Eq. 10
``ratio``                  R_k                  D_k / D_K (Alg. 1 line 7)
``threshold``              r                    activation threshold
``gamma``                  gamma                weight of DAT
``active``                 act                  is DAT still on (one flag a chain)
``chains``                 N of Sec. 4.1        reverse processes run for one image
=========================  ===================  ====================================================

Model units are metres times ``diffusion.scale``; meshes and poses are root-relative, camera frame.
"""
