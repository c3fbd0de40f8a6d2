"""The harness: measures attention variants, stores rows, draws figures and gates regressions."""
