"""Probes: what plain regressions get out of the frozen features, on validation images.

g has the same features. What no regression finds in f_I beyond U's mean, g will hardly find, and
the linear control, which is the first of the regressions, is then hard to beat.
"""
