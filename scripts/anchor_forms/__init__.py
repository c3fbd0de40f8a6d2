"""Forms of the anchor kernels' passes that no device has shown to be quicker than `split` yet.

    from anchor_forms import forms
    forms.FORMS["skewed 128x4"](k, v, anchors, H100).launches      # a plan, as attentions.kernels.anchor.plan has it

They are no backend: scripts/anchor_large_n.py measures them on a device, and what wins moves into
attentions/kernels/anchor, where the rest is not kept. They take what the experiment needs: 16-bit inputs, anchors
that all heads share and that one program holds (m and d of 33 to 64), Hopper's tensor cores.

- `launched` (Triton): gather and scatter as split has them; the scatter's programs are put in place while the gather
  still runs (programmatic dependent launch), or tokens are loaded by tensor maps (TMA), or both;
- `skewed` (Triton): one launch that reads K once, a program's A kept in registers until its head's means are there;
- `specialised` (Gluon): the same with warps that load, gather and scatter side by side, A kept in shared memory;
- `skewed_backward` (Gluon): the backward pass in one launch, K and G kept in shared memory until dM and dδ are there;
- `forms`, `backward_forms`: their plans; `phases`: both passes.
"""
