"""Serving: the engines that answer for a base and its trained adapters."""
