"""Reverse proxies side by side: what `run` is made of."""
