"""Anchor attention in kernels of our own: on the GPU through Triton, on the CPU in blocks that stay in cache.

    from attentions.kernels.anchor.operators import anchor_attention, anchor_attention_fused
    out = anchor_attention(k, v, anchors)              # (b, h, n, d), (b, h, n, d), (m, d) → (b, h, n, d)

    A = softmax_j(k_i · u_j / √d)    M = Aᵀ V    δ = Aᵀ 1    W = Δ⁻¹ M    O = A W

Forward. *Gather* streams K and V once per head, split over tokens, and keeps U, the (m, d) sum of AᵀV and the m degrees
on chip. *Reduce* adds the splits in a fixed order and divides by the degree. *Scatter* reads K again, forms A again and
writes O. Nothing of size n × m exists.

Backward, from G = ∂L/∂O, with A formed again instead of stored:

    dW = Aᵀ G                       the gather kernel, with G for V
    dM = Δ⁻¹ dW                     W = Δ⁻¹ M
    dδ_j = −(1/δ_j) Σ_c dW_jc W_jc  ∂W_j/∂δ_j = −M_j/δ_j² = −W_j/δ_j
    dA = G Wᵀ + V dMᵀ + 1 dδᵀ       A occurs in O = A W, in M = AᵀV and in δ = Aᵀ1
    dV = A dM
    dS = A ∘ (dA − (A ∘ dA) 1 1ᵀ)   softmax, token by token
    dK = dS U / √d,  dU = Σ_i dSᵀ K / √d

Two ways through the anchors:
- *whole*: all anchors of a token are in one tile, so that its softmax is finished inside it;
- *blocked*: m × d does not fit on chip. A launch computes each token's log-sum-exp first (n floats a head), after which
  a block of anchors can be treated without the others.

Source: Shan et al. 2025, arXiv 2505.16463.

Which file holds what, each importing only from those above it:
- Triton code: `memory` (loading and storing: all that knows a tensor's layout), `algebra` (products, softmax),
  `sums` (over splits), `whole`, `backward`, `single`, `blocked`;
- which launches: `devices`, `tiles`, `choices` (heuristic), `plan` (what a plan is), `plan_forward`,
  `plan_backward`;
- `stages`, `plan_staged`, `staged`: gather and scatter apart, for options that the fused passes do not know;
- `cost` (FLOPs and peak), `tuning` (on a device, on request), `operators` (for PyTorch);
- `chunked`: the CPU, in eager PyTorch; `keys`, `options`: what the variant's options change and cost; `backends`: all
  of it as the registry takes it. These import no Triton.
"""
