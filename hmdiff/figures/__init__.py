"""Figures 2 and 3 of the paper, with our own models: pictures and the numbers behind them."""
