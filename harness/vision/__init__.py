"""Vision models around the attentions, the tasks they are trained and judged on, training and evaluation."""
