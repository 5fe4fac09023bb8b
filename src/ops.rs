//! The operations: one file each, forward beside backward. Add an operation here, and its kernels to the list at the
//! end of `kernel.rs`.

pub(crate) mod activation;
pub(crate) mod angle;
pub(crate) mod batched;
pub(crate) mod broadcast;
pub(crate) mod check;
pub(crate) mod clip;
pub(crate) mod cross_entropy;
pub(crate) mod divergence;
pub(crate) mod divide;
pub(crate) mod entropy;
pub(crate) mod extrema;
pub(crate) mod guarded;
pub(crate) mod linear;
pub(crate) mod logsumexp;
pub(crate) mod loss_scale;
pub(crate) mod matmul;
pub(crate) mod mixed;
mod mixed_rows;
mod mixed_tensors;
pub(crate) mod multiply;
pub(crate) mod norm;
pub(crate) mod norm_partial;
pub(crate) mod normalize;
pub(crate) mod optimizer;
pub(crate) mod power;
pub(crate) mod row_norm;
pub(crate) mod running_logsumexp;
pub(crate) mod scale;
pub(crate) mod softmax;
pub(crate) mod statistics;
pub(crate) mod sum;

pub use activation::{
    elu, elu_backward, gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, hard_sigmoid, hard_sigmoid_backward,
    hard_swish, hard_swish_backward, hard_tanh, hard_tanh_backward, leaky_relu, leaky_relu_backward, log_sigmoid,
    log_sigmoid_backward, mish, mish_backward, relu, relu_backward, sigmoid, sigmoid_backward, silu, silu_backward,
    softplus, softplus_backward, tanh, tanh_backward,
};
pub use angle::{atan2, atan2_backward};
pub use batched::{matmul_batched, matmul_batched_with};
pub use check::{check_finite, check_operation};
pub use clip::{
    Clip, Clipping, OnFault, clip_by_global_norm, clip_by_global_norm_with, clip_by_norm, clip_by_rms, clip_by_value,
    clip_by_value_backward, clip_rows_by_norm, clip_rows_with_norms, clip_unitwise, unscale,
};
pub use cross_entropy::{
    CrossEntropy, Loss, Reduction, Targets, cross_entropy, cross_entropy_backward, cross_entropy_in_place,
    cross_entropy_with_gradient,
};
pub use divergence::{binary_cross_entropy, binary_cross_entropy_backward, kl_divergence, kl_divergence_backward};
pub use divide::{safe_div, safe_div_backward, safe_div_backward_with, safe_div_with};
pub use entropy::{softmax_entropy, softmax_entropy_backward};
pub use extrema::{argmax_rows, argmin_rows, max_rows, max_rows_backward, min_rows, min_rows_backward};
pub use guarded::{
    Safe, safe_ln, safe_ln_backward, safe_recip, safe_recip_backward, safe_rsqrt, safe_rsqrt_backward, safe_sqrt,
    safe_sqrt_backward,
};
pub use linear::{Activation, LinearGradients, linear, linear_backward};
pub use logsumexp::{
    logsumexp, logsumexp_backward, logsumexp_backward_with, logsumexp_weighted, logsumexp_weighted_backward,
    logsumexp_with,
};
pub use loss_scale::{DynamicLossScale, LossStep};
pub use matmul::{Matmul, matmul, matmul_backward, matmul_with};
pub use mixed::matmul_mixed;
pub use mixed_rows::{cross_entropy_mixed, layer_norm_mixed, log_softmax_mixed, rms_norm_mixed, softmax_mixed};
pub use mixed_tensors::{TensorMut, clip_by_global_norm_mixed};
pub use multiply::{safe_mul, safe_mul_backward};
pub use norm::{l2_norm, l2_norm_backward};
pub use norm_partial::NormPartial;
pub use normalize::{
    LayerNorm, LayerNormGradients, RmsNorm, cosine_similarity, cosine_similarity_backward, layer_norm,
    layer_norm_backward, normalize, normalize_backward, rms_norm, rms_norm_backward,
};
pub use optimizer::{Adam, AdamW, Sgd};
pub use power::{safe_pow, safe_pow_backward, xlog1py, xlog1py_backward, xlogy, xlogy_backward};
pub use row_norm::{lp_norm, lp_norm_backward, lp_norm_rows, lp_norm_rows_backward};
pub use running_logsumexp::LogSumExp;
pub use softmax::{
    EmptyRow, Softmax, log_softmax, log_softmax_backward, log_softmax_backward_with, log_softmax_with, softmax,
    softmax_backward, softmax_backward_with, softmax_in_place, softmax_with,
};
pub use statistics::{
    Variance, mean_rows, mean_rows_backward, std_rows, std_rows_backward, variance_rows, variance_rows_backward,
};
pub use sum::{dot, dot_backward, sum, sum_backward};
