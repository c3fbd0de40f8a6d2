"""Where cases run: `local` is a worker process here, `devices` one on each of several GPUs here, `ray` a cluster.

process (the worker's, as `local` holds it) · place (one device with its engine) · watch (looks before and after, and
tries again) · station (a place on another machine) · ranks, torchrun (one case on several processes). May import
measuring and what is below.
"""
