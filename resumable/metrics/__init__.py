"""Figures for Prometheus: their names, where each is read, and what is counted nowhere else."""
