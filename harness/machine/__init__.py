"""What it ran on: hardware, system and packages, free memory, and what about them makes timings unsteady.

environment (environment.json) · system (/proc and cgroups) · nvml (one GPU) · memory · allocator (what a CPU
keeps) · doctor/ (ONE FILE A CHECK) · quiet (was it quiet meanwhile: one verdict) · shown (its best canaries) ·
instructions (perf_event) · cache (the user's folder). May import store and what is below.
"""
