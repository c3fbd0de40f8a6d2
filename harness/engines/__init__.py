"""Where cases run: `local` is a worker process here, `devices` one on each of several GPUs here, `ray` a cluster."""
