"""Where cases run: one file an engine, found by file name; each offers `Engine(plugins, device)`."""
