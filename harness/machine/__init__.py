"""What it ran on: hardware, system and packages, free memory, and what about them makes timings unsteady.

environment (environment.json) · system (/proc and cgroups) · nvml (one GPU) · memory · doctor/ (ONE FILE A CHECK).
May import store and what is below.
"""
