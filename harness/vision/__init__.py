"""Vision models around the attentions, the tasks they are trained and judged on, training and evaluation.

May import figures, machine and what is below; what a trained model costs is measured in harness.measuring.
"""
