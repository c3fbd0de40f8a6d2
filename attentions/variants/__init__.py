"""One file a variant; each defines one or more `attentions.Spec` at its top level."""
