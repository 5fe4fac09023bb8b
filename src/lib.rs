//! SIMD numerics kernels for machine learning that do not turn a training run into NaN, and that say exactly where it
//! happened when the data does.
//!
//! # The promises
//!
//! 1. **Nothing avoidable.** Finite operands whose true result is representable give that result, within the documented
//!    error: no NaN, no infinity and no wrong 0 made by an intermediate step, in gradients as in values.
//! 2. **Nothing swallowed.** A NaN in an operand that is read reaches the result and the report.
//! 3. **Nothing read that does not count.** What lies behind a structural zero (`beta = 0`, an ignored target, a branch
//!    not taken) changes nothing and raises nothing.
//! 4. **Always checked.** Every call says whether what it wrote is finite, and if not, where and why: [`NonFinite`].
//! 5. **The same bits everywhere.** A result depends on the operands alone: not on the instruction set, the number of
//!    threads, the alignment, the strides, or the rest of the batch.
//! 6. **Known error.** Each function documents its largest error, and a test measures it.
//!
//! # A first call
//!
//! ```
//! use nanproof::{CrossEntropy, MatMut, MatRef, cross_entropy_with_gradient, matmul};
//!
//! let (x, w) = ([1.0_f32, -2.0, 0.5, 3.0], [0.1, 0.2, -0.3, 0.4]);
//! let (mut logits, mut gradient) = ([0.0; 4], [0.0; 4]);
//! matmul(MatRef::new(&x, 2, 2)?, MatRef::new(&w, 2, 2)?, MatMut::new(&mut logits, 2, 2)?)?;
//!
//! let logits = MatRef::new(&logits, 2, 2)?;
//! let loss = cross_entropy_with_gradient(CrossEntropy::default(), logits, &[0, 1], MatMut::new(&mut gradient, 2, 2)?)?;
//! assert!(loss.value < 0.7);
//! # Ok::<(), nanproof::Error>(())
//! ```
//!
//! # The map
//!
//! | to compute | forward | gradient |
//! |---|---|---|
//! | a matrix product | [`matmul`], [`matmul_with`] | [`matmul_backward`] |
//! | products of a batch | [`matmul_batched`], [`matmul_batched_with`] | the same, with transposes |
//! | a product of 16-bit operands | [`matmul_mixed`] | |
//! | rows in 16 bits | [`softmax_mixed`], [`log_softmax_mixed`], [`layer_norm_mixed`], [`rms_norm_mixed`], [`cross_entropy_mixed`] | |
//! | a linear layer | [`linear`] | [`linear_backward`] |
//! | probabilities from logits | [`softmax`], [`log_softmax`] | [`softmax_backward`], [`log_softmax_backward`] |
//! | with masks, scale, bias, in place | [`softmax_with`], [`log_softmax_with`], [`softmax_in_place`] | [`softmax_backward_with`], [`log_softmax_backward_with`] |
//! | a log-sum-exp | [`logsumexp`], [`logsumexp_with`], [`LogSumExp`] | [`logsumexp_backward`], [`logsumexp_backward_with`] |
//! | with weights of either sign | [`logsumexp_weighted`] | [`logsumexp_weighted_backward`] |
//! | a classification loss | [`cross_entropy`] | [`cross_entropy_backward`], [`cross_entropy_with_gradient`], [`cross_entropy_in_place`] |
//! | a loss of two classes | [`binary_cross_entropy`] | [`binary_cross_entropy_backward`] |
//! | a divergence, an entropy | [`kl_divergence`], [`softmax_entropy`] | [`kl_divergence_backward`], [`softmax_entropy_backward`] |
//! | extremes of rows | [`max_rows`], [`min_rows`], [`argmax_rows`], [`argmin_rows`] | [`max_rows_backward`], [`min_rows_backward`] |
//! | a quotient, safe at 0 | [`safe_div`], [`safe_recip`] | [`safe_div_backward`], [`safe_recip_backward`] |
//! | a product with a mask | [`safe_mul`] | [`safe_mul_backward`] |
//! | roots | [`safe_sqrt`], [`safe_rsqrt`] | [`safe_sqrt_backward`], [`safe_rsqrt_backward`] |
//! | logarithms | [`safe_ln`], [`xlogy`], [`xlog1py`] | [`safe_ln_backward`], [`xlogy_backward`], [`xlog1py_backward`] |
//! | powers | [`safe_pow`] | [`safe_pow_backward`] |
//! | the angle of a point | [`atan2`] | [`atan2_backward`] |
//! | sums and norms | [`sum`], [`dot`], [`l2_norm`], [`NormPartial`] | [`sum_backward`], [`dot_backward`], [`l2_norm_backward`] |
//! | norms of any order | [`lp_norm`], [`lp_norm_rows`] | [`lp_norm_backward`], [`lp_norm_rows_backward`] |
//! | statistics of rows | [`mean_rows`], [`variance_rows`], [`std_rows`] | [`mean_rows_backward`], [`variance_rows_backward`], [`std_rows_backward`] |
//! | normalised rows | [`layer_norm`], [`rms_norm`], [`normalize`] | [`layer_norm_backward`], [`rms_norm_backward`], [`normalize_backward`] |
//! | angles between rows | [`cosine_similarity`] | [`cosine_similarity_backward`] |
//! | vector functions | [`math`] | |
//! | activations | [`relu`], [`leaky_relu`], [`elu`], [`gelu`], [`gelu_tanh`], [`silu`], [`mish`], [`sigmoid`], [`log_sigmoid`], [`softplus`], [`tanh`], [`hard_sigmoid`], [`hard_swish`], [`hard_tanh`] | the same names with `_backward` |
//! | bounded gradients | [`clip_by_value`], [`clip_by_norm`], [`clip_by_rms`], [`clip_by_global_norm`], [`clip_by_global_norm_with`] | [`clip_by_value_backward`] |
//! | the same of several storage types | [`clip_by_global_norm_mixed`], [`TensorMut`] | |
//! | bounded rows of gradients | [`clip_rows_by_norm`], [`clip_rows_with_norms`], [`clip_unitwise`] | |
//! | gradients in mixed precision | [`unscale`], [`DynamicLossScale`] | |
//! | a step of training | [`Sgd`], [`Adam`], [`AdamW`] | |
//! | whether all is finite | [`check_finite`], [`check_operation`] | |
//! | where a NaN comes from | [`FaultLog`], [`NonFinite`], the [`guide`] | |
//! | what gradients hold, and which explode or vanish | [`GradientLog`], [`TensorStats`] | |
//! | whether a gradient is right | | [`gradcheck`](gradcheck()) |
//!
//! Functions named `_with` take options; `_backward` takes what the forward function saved, the upstream gradient, and
//! the place of the result, in this order. Results go to slices and views of the caller: nothing large is allocated.
//!
//! # Errors
//!
//! Every function returns a [`Result`]. A wrong shape or argument is found before anything is written. On
//! [`Error::NonFinite`] the results are written by the rules of IEEE 754, except in place, where the operand is left as
//! it was (but for a gradient of [`cross_entropy_in_place`] that overflows).
//!
//! # Features
//!
//! - `std` (default): detection of the CPU's instruction sets at run time, and `NANPROOF_ISA`. Without it the crate needs
//!   `alloc` alone.
//! - `rayon`: large calls are split over the threads of the caller's current rayon pool, with the same bits.
//! - `half`: tensors of `half::bf16` and `half::f16` as operands of [`matmul_mixed`], [`softmax_mixed`],
//!   [`clip_by_global_norm_mixed`] and the like.
//! - `serde`: the state of [`DynamicLossScale`] can be saved and restored; reports, statistics and records can be
//!   serialised, and [`GradientLog`] writes lines of JSON.
//! - `tracing`: faults, records and flags are events of the crate `tracing`.
//! - `html`: [`GradientLog`] draws a page with plots.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod column_sums;
mod diagnose;
mod error;
mod exact;
mod exponentials;
mod finite;
mod float;
mod gemm;
mod isa;
mod kernel;
mod lanes;
mod line;
mod logits;
mod long;
mod moments;
mod ops;
mod reduce;
mod row_gradient;
mod row_map;
mod rows;
mod scaled;
mod simd;
mod squares;
mod storage;
mod sweep;
mod unit;
mod view;

#[cfg(feature = "std")]
pub mod guide;
pub mod math;
pub mod reference;

pub use diagnose::*;
pub use error::{Error, Result, Shape};
pub use finite::{Class, Counts, Factor, Index, NonFinite, Origin, Term};
pub use float::Float;
pub use isa::Isa;
pub use ops::*;
pub use storage::Storage;
pub use view::{BatchMut, BatchRef, MatMut, MatRef};

/// What this crate's own tests and benchmarks look into; not part of its public interface.
#[doc(hidden)]
pub mod internal {
    pub use crate::kernel::{Join, Kernel};
    pub use crate::simd::*;
}
