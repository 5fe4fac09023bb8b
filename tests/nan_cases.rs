//! NaN, infinities and wrong zeros from the issue trackers of other libraries: what went wrong there is right here, in
//! value and gradient, both types, on every instruction set. Each test is named for its source.
//!
//! Sources that wait for operations to come:
//!
//! | operation | sources |
//! |---|---|
//! | select of any two operands, `x^y` by its parts | jax#5798, tensorflow#2540, pytorch#23156, burn#3727, torch7#60 (products) |
//! | attention, cumulative log-sum-exp | llama.cpp#19098, flashinfer#358, tinygrad#17853 |
//! | pooling, scatter | pytorch#7670, #169263 |

mod common;

use common::{Kind, assert_same, data, mat, mat_mut, num, nums, report};
use nanproof::reference::{self, Wide, ulp_error};
use nanproof::{
    Adam, AdamW, Class, Clipping, CrossEntropy, DynamicLossScale, Error, Float, Index, LayerNorm, LayerNormGradients,
    LossStep, MatRef, Matmul, NormPartial, OnFault, Origin, Reduction, RmsNorm, Safe, Sgd, Softmax, Variance,
    argmax_rows, atan2, atan2_backward, binary_cross_entropy, binary_cross_entropy_backward, clip_by_global_norm,
    clip_by_global_norm_with, clip_by_norm, clip_by_value, clip_by_value_backward, cosine_similarity,
    cosine_similarity_backward, cross_entropy, cross_entropy_with_gradient, gelu, gelu_backward, gelu_tanh,
    gelu_tanh_backward, kl_divergence, kl_divergence_backward, l2_norm, l2_norm_backward, layer_norm,
    layer_norm_backward, log_softmax, log_softmax_backward, logsumexp, logsumexp_backward, logsumexp_backward_with,
    logsumexp_weighted, logsumexp_weighted_backward, logsumexp_with, lp_norm, lp_norm_backward, lp_norm_rows_backward,
    matmul_with, max_rows, max_rows_backward, mish, mish_backward, normalize, normalize_backward, relu, relu_backward,
    rms_norm, rms_norm_backward, safe_div, safe_div_backward, safe_ln, safe_ln_backward, safe_mul, safe_mul_backward,
    safe_pow, safe_pow_backward, safe_recip, safe_recip_backward, safe_rsqrt, safe_rsqrt_backward, safe_sqrt,
    safe_sqrt_backward, silu, silu_backward, softmax, softmax_backward, softmax_backward_with, softmax_entropy,
    softmax_entropy_backward, softmax_with, softplus, softplus_backward, std_rows, tanh, tanh_backward, unscale,
    variance_rows, xlog1py, xlogy, xlogy_backward,
};

const INF: f64 = f64::INFINITY;

/// Within a block, at its end, past it, past a group of blocks.
const LENS: [usize; 11] = [1, 2, 3, 7, 15, 16, 17, 64, 127, 128, 1000];

/// A test of this name, with its body in both types on every instruction set.
macro_rules! case {
    ($name:ident, $body:item) => {
        #[test]
        fn $name() {
            $body
            everywhere!(check);
        }
    };
}

/// A row of `fill` with `values` at its start, its end, and somewhere between.
fn placed<T: Float>(len: usize, fill: f64, values: &[f64]) -> Vec<Vec<T>> {
    let Some(free) = len.checked_sub(values.len()) else { return Vec::new() };
    let row = |at: usize| {
        let mut x = vec![num(fill); len];
        x[at..at + values.len()].copy_from_slice(&nums::<T>(values));
        x
    };
    [0, free / 2, free].map(row).to_vec()
}

fn softmax_of<T: Float>(x: &[T]) -> (Vec<T>, usize) {
    let mut y = vec![T::nan(); x.len()];
    let empty = softmax(mat(x, 1, x.len()), mat_mut(&mut y, 1, x.len())).expect("nothing to report");
    (y, empty)
}

fn softmax_gradient_of<T: Float>(p: &[T], dp: &[T]) -> Vec<T> {
    let mut dx = vec![T::nan(); p.len()];
    softmax_backward(mat(p, 1, p.len()), mat(dp, 1, p.len()), mat_mut(&mut dx, 1, p.len())).expect("nothing to report");
    dx
}

fn lse_of<T: Float>(x: &[T]) -> T {
    let mut y = [T::nan()];
    logsumexp(mat(x, 1, x.len()), &mut y).expect("nothing to report");
    y[0]
}

fn lse_gradient_of<T: Float>(x: &[T]) -> Vec<T> {
    let mut dx = vec![T::nan(); x.len()];
    logsumexp_backward(mat(x, 1, x.len()), &[T::one()], mat_mut(&mut dx, 1, x.len())).expect("nothing to report");
    dx
}

case!(
    pytorch_41508_fully_masked_row,
    fn check<T: Float>() {
        for len in LENS {
            let (y, empty) = softmax_of(&vec![T::neg_infinity(); len]);
            assert_same(len, &y, &vec![T::zero(); len]);
            assert_eq!(empty, 1);
            // The upstream gradient of a row that is cut off later may be anything.
            assert_same(len, &softmax_gradient_of(&y, &vec![T::nan(); len]), &vec![T::zero(); len]);
        }
    }
);

case!(
    pytorch_103749_padding_rows_among_others,
    fn check<T: Float>() {
        let (rows, cols) = (5, 37);
        let mut x = data::<T>(1, Kind::Within(3.0), rows * cols);
        x[2 * cols..4 * cols].fill(T::neg_infinity());
        let mut y = vec![T::nan(); rows * cols];
        assert_eq!(softmax(mat(&x, rows, cols), mat_mut(&mut y, rows, cols)), Ok(2));
        assert_same("padding", &y[2 * cols..4 * cols], &vec![T::zero(); 2 * cols]);
        assert_same("a row after it", &y[4 * cols..], &softmax_of(&x[4 * cols..]).0);
        let mut dx = vec![T::nan(); rows * cols];
        let dy = data::<T>(2, Kind::Within(1.0), rows * cols);
        softmax_backward(mat(&y, rows, cols), mat(&dy, rows, cols), mat_mut(&mut dx, rows, cols)).expect("finite");
        assert_same("gradient of padding", &dx[2 * cols..4 * cols], &vec![T::zero(); 2 * cols]);
    }
);

case!(
    pytorch_71502_one_entry_left_by_the_mask,
    fn check<T: Float>() {
        for len in LENS {
            for (x, want) in placed::<T>(len, -INF, &[3.0]).iter().zip(placed::<T>(len, 0.0, &[1.0])) {
                let (y, empty) = softmax_of(x);
                assert_same(len, &y, &want);
                assert_eq!(empty, 0);
                assert_same(len, &softmax_gradient_of(&y, &vec![num(5.0); len]), &vec![T::zero(); len]);
            }
        }
    }
);

case!(
    burn_4697_logits_below_the_floor_of_a_fallback,
    fn check<T: Float>() {
        for len in LENS {
            for x in placed::<T>(len, -INF, &[-20000.0, -20001.0]) {
                let want = reference::softmax(&x);
                for (got, want) in softmax_of(&x).0.into_iter().zip(want) {
                    assert!(ulp_error(got, want) <= 2.0);
                }
            }
        }
    }
);

case!(
    iree_24175_masked_rows_are_positive_zero,
    fn check<T: Float>() {
        assert!(softmax_of(&[T::neg_infinity(); 19]).0.iter().all(|y| y.is_sign_positive()));
    }
);

case!(
    onnxruntime_28461_log_sum_exp_of_minus_infinities,
    fn check<T: Float>() {
        for len in LENS {
            let x = vec![T::neg_infinity(); len];
            assert_same(len, &[lse_of(&x)], &[T::neg_infinity()]);
            assert_same(len, &lse_gradient_of(&x), &vec![T::zero(); len]);
        }
    }
);

case!(
    mlx_1467_the_same_for_every_length,
    fn check<T: Float>() {
        for len in 1..300 {
            assert_same(len, &softmax_of(&vec![T::neg_infinity(); len]).0, &vec![T::zero(); len]);
        }
    }
);

case!(
    mlx_576_log_sum_exp_with_an_infinity,
    fn check<T: Float>() {
        for x in LENS.into_iter().flat_map(|len| placed::<T>(len, 3.0, &[INF])) {
            let len = x.len();
            let mut y = [T::nan()];
            let found = report(logsumexp(mat(&x, 1, len), &mut y));
            assert_eq!((found.class, found.origin, found.counts.total()), (Class::PosInf, Origin::PassedIn, 1));
            assert_same(len, &y, &[T::infinity()]);
            let mut dx = vec![T::nan(); len];
            report(logsumexp_backward(mat(&x, 1, len), &[T::one()], mat_mut(&mut dx, 1, len)));
            let want = x.iter().map(|x| if x.is_infinite() { T::one() } else { T::zero() });
            assert_same(len, &dx, &want.collect::<Vec<_>>());
        }
    }
);

case!(
    pytorch_49724_log_sum_exp_does_not_depend_on_its_grouping,
    fn check<T: Float>() {
        let x = nums::<T>(&[-INF, -INF, 2.0]);
        assert_same("at once", &[lse_of(&x)], &[num(2.0)]);
        assert_same("grouped", &[lse_of(&[lse_of(&x[..2]), x[2]])], &[num(2.0)]);
        assert_same("gradient", &lse_gradient_of(&x), &nums::<T>(&[0.0, 0.0, 1.0]));
        let mut y = [T::nan()];
        report(softmax(mat(&[T::infinity()], 1, 1), mat_mut(&mut y, 1, 1)));
        assert_same("softmax of +inf", &y, &[T::one()]);
        let mut y = [T::nan(); 4];
        report(softmax(mat(&nums::<T>(&[INF, 0.0, INF, -INF]), 1, 4), mat_mut(&mut y, 1, 4)));
        assert_same("softmax of two +inf", &y, &nums::<T>(&[0.5, 0.0, 0.5, 0.0]));
    }
);

case!(
    pytorch_31829_gradients_at_minus_infinity,
    fn check<T: Float>() {
        let x = [T::neg_infinity(); 2];
        assert_same("log-sum-exp", &lse_gradient_of(&x), &[T::zero(); 2]);
        let (mut y, mut dx) = ([T::nan(); 2], [T::nan(); 2]);
        assert_eq!(log_softmax(mat(&x, 1, 2), mat_mut(&mut y, 1, 2)), Ok(1));
        assert_same("log-softmax", &y, &x);
        log_softmax_backward(mat(&y, 1, 2), mat(&[T::one(); 2], 1, 2), mat_mut(&mut dx, 1, 2)).expect("finite");
        assert_same("its gradient", &dx, &[T::zero(); 2]);
    }
);

case!(
    rmcgibbo_logsumexp_2_vectors_of_minus_infinity,
    fn check<T: Float>() {
        for len in 1..100 {
            assert_same(len, &[lse_of(&vec![T::neg_infinity(); len])], &[T::neg_infinity()]);
        }
    }
);

case!(
    nnlib_68_gradient_at_an_underflowed_probability,
    fn check<T: Float>() {
        let x = nums::<T>(&[-431.0, 279.0, 427.0]);
        let mut dx = [T::nan(); 3];
        let loss = cross_entropy_with_gradient(CrossEntropy::default(), mat(&x, 1, 3), &[0], mat_mut(&mut dx, 1, 3));
        assert_same("loss", &[loss.expect("finite").value], &[num(858.0)]);
        let want = reference::cross_entropy_backward(CrossEntropy::default(), mat(&x, 1, 3), &[0], T::one());
        dx.iter().zip(want).for_each(|(&dx, want)| assert!(ulp_error(dx, want) <= 3.0));
        assert_same("gradient", &[dx[0], dx[2]], &nums::<T>(&[-1.0, 1.0]));
    }
);

case!(
    dynet_218_log_softmax_gradient_of_tiny_probabilities,
    fn check<T: Float>() {
        let y = nums::<T>(&[-1000.0, 0.0, -2000.0]);
        let mut dx = [T::nan(); 3];
        log_softmax_backward(mat(&y, 1, 3), mat(&nums::<T>(&[1.0, 2.0, 3.0]), 1, 3), mat_mut(&mut dx, 1, 3))
            .expect("finite");
        assert_same("gradient", &dx, &nums::<T>(&[1.0, -4.0, 3.0]));
    }
);

case!(
    torch_xpu_ops_5022_masked_row_with_nan,
    fn check<T: Float>() {
        for x in LENS.into_iter().flat_map(|len| placed::<T>(len, -INF, &[f64::NAN])) {
            let len = x.len();
            let mut y = vec![T::zero(); len];
            let found = report(softmax(mat(&x, 1, len), mat_mut(&mut y, 1, len)));
            assert_eq!((found.class, found.counts.nan, found.counts.total()), (Class::Nan, 1, 1));
            assert!(y.iter().all(|y| y.is_nan()));
        }
    }
);

case!(
    lattice_740_nan_beside_a_logit,
    fn check<T: Float>() {
        for len in 2..100 {
            for at in 0..len {
                let mut x = vec![T::one(); len];
                x[at] = T::nan();
                let mut y = vec![T::zero(); len];
                let found = report(softmax(mat(&x, 1, len), mat_mut(&mut y, 1, len)));
                assert_eq!(found.index, Index::Cell(0, at));
                assert!(y.iter().all(|y| y.is_nan()));
                assert!(report(logsumexp(mat(&x, 1, len), &mut y[..1])).class == Class::Nan && y[0].is_nan());
            }
        }
    }
);

#[test]
fn paddleocr_18341_minus_infinities_in_a_large_batch() {
    let (rows, cols) = (8 * 12 * 71, 71);
    let x = (0..rows * cols).map(|i| if i % 3 == 0 { f32::NEG_INFINITY } else { (i % 17) as f32 }).collect::<Vec<_>>();
    let mut y = vec![f32::NAN; rows * cols];
    assert_eq!(softmax(mat(&x, rows, cols), mat_mut(&mut y, rows, cols)), Ok(0));
    assert!(y.iter().zip(&x).all(|(y, x)| y.is_finite() && (*y == 0.0) == x.is_infinite()));
}

case!(
    allennlp_890_log_softmax_of_a_masked_row,
    fn check<T: Float>() {
        for len in LENS {
            let x = vec![T::neg_infinity(); len];
            let mut y = vec![T::nan(); len];
            assert_eq!(log_softmax(mat(&x, 1, len), mat_mut(&mut y, 1, len)), Ok(1));
            assert_same(len, &y, &x);
        }
    }
);

case!(
    transformers_27114_sum_of_two_additive_masks,
    fn check<T: Float>() {
        // The lowest number is a logit like any other; twice it is -inf, an event of probability 0.
        let lowest = T::min_value();
        assert_same("lowest", &softmax_of(&[lowest; 4]).0, &[num(0.25); 4]);
        assert_same("twice", &softmax_of(&[lowest + lowest; 4]).0, &[T::zero(); 4]);
        assert_same("both", &softmax_of(&[lowest + lowest, lowest]).0, &[T::zero(), T::one()]);
    }
);

case!(
    transformers_18185_masked_entries_come_back_to_life,
    fn check<T: Float>() {
        let (y, _) = softmax_of(&[T::neg_infinity(), T::min_value(), T::neg_infinity() + T::max_value()]);
        assert_same("masked", &y, &nums::<T>(&[0.0, 1.0, 0.0]));
    }
);

case!(
    pytorch_70348_every_target_ignored,
    fn check<T: Float>() {
        let options = CrossEntropy { ignore: Some(100), reduction: Reduction::Mean, ..CrossEntropy::default() };
        let x = [T::nan(); 15];
        let mut dx = [T::nan(); 15];
        let loss = cross_entropy_with_gradient(options, mat(&x, 5, 3), &[100; 5], mat_mut(&mut dx, 5, 3))
            .expect("nothing is read");
        assert_same("loss", &[loss.value], &[T::zero()]);
        assert_same("gradient", &dx, &[T::zero(); 15]);
        assert_eq!(loss.count, 0); // cosmos-rl#155: the count stands beside it
    }
);

case!(
    pytorch_51906_empty_input,
    fn check<T: Float>() {
        let loss = cross_entropy::<T>(CrossEntropy::default(), mat(&[], 0, 7), &[]).expect("no fault");
        assert_eq!((loss.value, loss.count), (T::zero(), 0));
        assert_same("log-sum-exp", &[lse_of::<T>(&[])], &[T::neg_infinity()]);
        assert_eq!(l2_norm::<T>(&[]), Ok(T::zero()));
    }
);

case!(
    optax_1762_log_softmax_gradient_with_zero_cotangents,
    fn check<T: Float>() {
        let y = nums::<T>(&[-INF, -std::f64::consts::LN_2, -std::f64::consts::LN_2]);
        let mut dx = [T::nan(); 3];
        log_softmax_backward(mat(&y, 1, 3), mat(&[T::zero(); 3], 1, 3), mat_mut(&mut dx, 1, 3)).expect("finite");
        assert_same("gradient", &dx, &[T::zero(); 3]);
    }
);

case!(
    mindact_1633_cross_entropy_with_minus_infinities,
    fn check<T: Float>() {
        for len in LENS.into_iter().filter(|&len| len > 1) {
            for x in placed::<T>(len, -INF, &[0.0, 0.0]) {
                let target = x.iter().position(|x| x.is_finite()).expect("two of them");
                let mut dx = vec![T::nan(); len];
                let loss = cross_entropy_with_gradient(
                    CrossEntropy::default(),
                    mat(&x, 1, len),
                    &[target as u32],
                    mat_mut(&mut dx, 1, len),
                );
                assert!(ulp_error(loss.expect("finite").value, std::f64::consts::LN_2) <= 2.0);
                let mut want = vec![T::zero(); len];
                (want[target], want[target + 1]) = (num(-0.5), num(0.5));
                assert_same(len, &dx, &want);
            }
        }
    }
);

case!(
    models_181_loss_of_an_underflowed_probability,
    fn check<T: Float>() {
        let x = nums::<T>(&[0.0, -2000.0]);
        let mut dx = [T::nan(); 2];
        let loss = cross_entropy_with_gradient(CrossEntropy::default(), mat(&x, 1, 2), &[1], mat_mut(&mut dx, 1, 2));
        assert_same("loss", &[loss.expect("finite").value], &[num(2000.0)]);
        assert_same("gradient", &dx, &nums::<T>(&[1.0, -1.0]));
        // A target of probability 0: the loss is infinite, a pole; its gradient is not.
        let x = nums::<T>(&[0.0, -INF]);
        let found =
            report(cross_entropy_with_gradient(CrossEntropy::default(), mat(&x, 1, 2), &[1], mat_mut(&mut dx, 1, 2)));
        assert_eq!((found.operand, found.class, found.origin), ("losses", Class::PosInf, Origin::DivisionByZero));
        assert_same("gradient", &dx, &nums::<T>(&[1.0, -1.0]));
    }
);

case!(
    pytorch_4132_quotient_set_to_zero_afterwards,
    fn check<T: Float>() {
        for len in LENS {
            let b = (0..len).map(|i| if i % 2 == 0 { T::zero() } else { T::one() }).collect::<Vec<_>>();
            let one = vec![T::one(); len];
            let (mut q, mut da, mut db) = (vec![T::nan(); len], vec![T::nan(); len], vec![T::nan(); len]);
            assert_eq!(safe_div(&one, &b, &mut q), Ok(len.div_ceil(2)));
            assert_same("quotient", &q, &b);
            assert_eq!(safe_div_backward(&one, &b, &one, &mut da, &mut db), Ok(len.div_ceil(2)));
            assert_same("da", &da, &b);
            let negative = b.iter().map(|&b| T::zero() - b).collect::<Vec<_>>();
            assert_same("db", &db, &negative);
        }
    }
);

case!(
    keras_20110_divide_no_nan,
    fn check<T: Float>() {
        for zero in nums::<T>(&[0.0, -0.0]) {
            let (mut q, mut da, mut db) = ([T::nan()], [T::nan()], [T::nan()]);
            assert_eq!(safe_div(&[T::one()], &[zero], &mut q), Ok(1));
            assert_eq!(safe_div_backward(&[T::one()], &[zero], &[T::one()], &mut da, &mut db), Ok(1));
            assert_same("all", &[q[0], da[0], db[0]], &[T::zero(); 3]);
        }
    }
);

case!(
    distrax_342_no_alarm_behind_a_zero,
    fn check<T: Float>() {
        let (mut q, mut da, mut db) = ([T::nan(); 3], [T::nan(); 3], [T::nan(); 3]);
        let (a, b) = (nums::<T>(&[-INF, f64::NAN, INF]), [T::zero(); 3]);
        assert_eq!(safe_div(&a, &b, &mut q), Ok(3));
        assert_eq!(safe_div_backward(&a, &b, &a, &mut da, &mut db), Ok(3));
        assert_same("quotient", &[q, da, db].concat(), &[T::zero(); 9]);
        let (mut p, mut da, mut db) = ([T::nan(); 3], [T::nan(); 3], [T::nan(); 3]);
        assert_eq!(safe_mul(&a, &b, &mut p), Ok(3));
        assert_eq!(safe_mul_backward(&a, &b, &a, &mut da, &mut db), Ok(3));
        assert_same("product", &[p, da, db].concat(), &[T::zero(); 9]);
    }
);

case!(
    pytorch_98276_angle_near_the_origin,
    fn check<T: Float>() {
        for size in nums::<T>(&[1e-23, 1e-30, 1e30, 1e-170, 1e170]).into_iter().filter(|size| size.is_normal()) {
            for (y, x) in [(size, size), (-size, size), (size, -size), (T::zero(), size), (size, T::zero())] {
                let (mut angle, mut dy, mut dx) = ([T::nan()], [T::nan()], [T::nan()]);
                atan2(&[y], &[x], &mut angle).expect("finite");
                assert!(ulp_error(angle[0], reference::atan2(y, x)) <= 0.66, "{y:e}, {x:e}: {:e}", angle[0]);
                assert_eq!(atan2_backward(&[y], &[x], &[T::one()], &mut dy, &mut dx), Ok(0));
                for (got, want) in [dy[0], dx[0]].into_iter().zip(reference::atan2_backward(y, x, T::one())) {
                    assert!(ulp_error(got, want) <= 2.5, "{y:e}, {x:e}: {got:e}");
                }
            }
        }
    }
);

case!(
    e3nn_112_angle_at_the_origin,
    fn check<T: Float>() {
        for len in LENS {
            let (zero, one) = (vec![T::zero(); len], vec![T::one(); len]);
            let (mut angle, mut dy, mut dx) = (vec![T::nan(); len], vec![T::nan(); len], vec![T::nan(); len]);
            atan2(&zero, &zero, &mut angle).expect("finite");
            assert_eq!(atan2_backward(&zero, &zero, &one, &mut dy, &mut dx), Ok(len));
            assert_same(len, &[angle, dy.clone(), dx.clone()].concat(), &zero.repeat(3));
            // Beside it, where a second gradient was wrong (CppAD#120).
            assert_eq!(atan2_backward(&zero, &one, &one, &mut dy, &mut dx), Ok(0));
            assert_same(len, &dy, &one);
            assert!(dx.iter().all(|dx| dx.is_zero()));
        }
    }
);

case!(
    nntrainer_4336_gradient_of_a_quotient,
    fn check<T: Float>() {
        let a = nums::<T>(&[1e20, 1e-30, 1e-30]);
        let g = nums::<T>(&[1.0, 1.0, 0.0]);
        let (mut da, mut db) = ([T::nan(); 3], [T::nan(); 3]);
        safe_div_backward(&a, &a, &g, &mut da, &mut db).expect("finite");
        for i in 0..3 {
            let [_, want] = reference::safe_div_backward(a[i], a[i], g[i]);
            assert!(ulp_error(db[i], want) <= 2.0, "{:e}", db[i]);
        }
    }
);

case!(
    tensorflow_12071_norm_at_zero_and_of_tiny_numbers,
    fn check<T: Float>() {
        for len in LENS {
            let mut dx = vec![T::nan(); len];
            assert_eq!(l2_norm(&vec![T::zero(); len]), Ok(T::zero()));
            l2_norm_backward(&vec![T::zero(); len], T::one(), &mut dx).expect("finite");
            assert_same(len, &dx, &vec![T::zero(); len]);
            for x in placed::<T>(len, 0.0, &[1e-30]) {
                assert_eq!(l2_norm(&x), Ok(num(1e-30)));
                l2_norm_backward(&x, T::one(), &mut dx).expect("finite");
                let want = x.iter().map(|x| if x.is_zero() { T::zero() } else { T::one() }).collect::<Vec<_>>();
                assert_same(len, &dx, &want);
            }
        }
    }
);

case!(
    pytorch_65599_norm_of_a_zero_matrix,
    fn check<T: Float>() {
        let mut dx = [T::nan(); 9];
        l2_norm_backward(&[T::zero(); 9], num(7.0), &mut dx).expect("finite");
        assert_same("gradient", &dx, &[T::zero(); 9]);
    }
);

case!(
    tinygrad_1113_gradient_far_out,
    fn check<T: Float>() {
        let x = nums::<T>(&[-100.0, 100.0, -1e30, 1e30, -INF, INF]);
        let mut dx = [T::nan(); 6];
        tanh_backward(&x, &[T::one(); 6], &mut dx).expect("finite");
        assert!(dx[0] < num(1e-30) && dx[0] >= T::zero());
        assert_same("gradient", &dx[2..], &[T::zero(); 4]);
    }
);

case!(
    rust_form_of_clipping_with_a_nan_norm,
    fn check<T: Float>() {
        // `(max / norm).min(1.0)` is 1 for a NaN norm.
        for x in LENS.into_iter().flat_map(|len| placed::<T>(len, 2.0, &[f64::NAN])) {
            let mut clipped = x.clone();
            let found = report(clip_by_norm(&mut clipped, T::one()));
            assert_eq!((found.class, found.origin), (Class::Nan, Origin::PassedIn));
            assert_same(x.len(), &clipped, &x);
        }
    }
);

case!(
    pytorch_31367_negative_limit,
    fn check<T: Float>() {
        for limit in nums::<T>(&[-1.0, f64::NAN, -INF]) {
            let mut x = [T::one(); 3];
            assert!(matches!(clip_by_norm(&mut x, limit), Err(Error::Argument { .. })));
            assert!(matches!(clip_by_global_norm(&mut [&mut x], limit), Err(Error::Argument { .. })));
            assert!(matches!(clip_by_value(&mut x, limit), Err(Error::Argument { .. })));
            assert_same("untouched", &x, &[T::one(); 3]);
        }
    }
);

case!(
    ferx_core_1112_norms_that_over_or_underflow,
    fn check<T: Float>() {
        let (max, tiny) = (T::max_value(), T::min_positive_value());
        for x in [vec![max, T::one()], vec![max; 8], vec![tiny; 8], vec![T::from_bits(1); 8]] {
            let limit = T::from_bits(1) * num(4.0);
            let want = reference::clip_by_norm(&x, limit);
            let mut clipped = x.clone();
            let clip = clip_by_norm(&mut clipped, limit).expect("finite");
            assert!(clip.clipped == (reference::l2_norm(&x) > limit.into()));
            clipped.iter().zip(want).for_each(|(&x, want)| assert!(ulp_error(x, want) <= 2.5, "{x:e}"));
        }
    }
);

case!(
    deepmd_5519_sum_of_squares_overflows,
    fn check<T: Float>() {
        let x = vec![num::<T>(1e19); 128];
        assert!(ulp_error(l2_norm(&x).expect("finite"), reference::l2_norm(&x)) <= 1.0);
        let large = vec![T::max_value() / num(16.0); 128];
        assert!(ulp_error(l2_norm(&large).expect("finite"), reference::l2_norm(&large)) <= 1.0);
    }
);

case!(
    paddle_26282_clipping_zeros,
    fn check<T: Float>() {
        for limit in nums::<T>(&[0.0, 1.0]) {
            let mut x = [T::zero(); 20];
            clip_by_norm(&mut x, limit).expect("finite");
            assert_same("zeros", &x, &[T::zero(); 20]);
        }
    }
);

case!(
    tensorflow_21363_clipping_an_infinite_gradient,
    fn check<T: Float>() {
        let (mut a, mut b) = (nums::<T>(&[1.0, 2.0]), nums::<T>(&[3.0, INF, f64::NAN, -INF]));
        let found = report(clip_by_global_norm(&mut [&mut a, &mut b], T::one()));
        assert_eq!((found.index, found.class, found.origin), (Index::Tensor(1, 1), Class::PosInf, Origin::PassedIn));
        assert_eq!((found.counts.nan, found.counts.pos_inf, found.counts.neg_inf, found.counts.len), (1, 1, 1, 6));
        assert_same("nothing is written", &[a, b].concat(), &nums::<T>(&[1.0, 2.0, 3.0, INF, f64::NAN, -INF]));
    }
);

case!(
    deepspeed_8415_a_step_that_is_not_taken_is_reported,
    fn check<T: Float>() {
        for g in LENS.into_iter().flat_map(|len| placed::<T>(len, 0.5, &[INF])) {
            let one = vec![T::one(); g.len()];
            let (mut w, mut m, mut v) = (one.clone(), one.clone(), one.clone());
            let found = report(AdamW::default().step(1, &mut w, &g, &mut m, &mut v));
            assert_eq!((found.operand, found.class), ("g", Class::PosInf));
            assert_eq!(report(Adam::default().step(1, &mut w, &g, &mut m, &mut v)).index, found.index);
            let sgd = Sgd { learning_rate: num(0.1), momentum: T::zero(), weight_decay: T::zero() };
            assert_eq!(report(sgd.step(&mut w, &g, &mut v)).operand, "g");
            assert_same("nothing is written", &[w, m, v].concat(), &one.repeat(3));
        }
    }
);

case!(
    megatron_llm_34_nan_without_a_loss_scale,
    fn check<T: Float>() {
        // The norm is the check, and a step that is skipped is reported.
        for x in LENS.into_iter().flat_map(|len| placed::<T>(len, 2.0, &[f64::NAN])) {
            let mut g = x.clone();
            let options = Clipping { on_fault: OnFault::Skip, ..Clipping::default() };
            let clip = clip_by_global_norm_with(options, &mut [&mut g], T::infinity(), None).expect("skipped");
            let fault = clip.fault.expect("reported");
            assert_eq!((fault.class, fault.counts.nan, fault.counts.len), (Class::Nan, 1, x.len()));
            assert_same("nothing is written", &g, &x);
        }
    }
);

case!(
    fairscale_263_norms_combined_across_shards,
    fn check<T: Float>() {
        // The squares of a shard's norm overflow; the common norm does not.
        let large = T::max_value() / num(16.0);
        let parts = vec![NormPartial::of(&[large]).expect("finite"); 9];
        assert_eq!(parts.into_iter().fold(NormPartial::default(), NormPartial::merge).norm(), Ok(large * num(3.0)));
        let tiny = vec![NormPartial::of(&[T::from_bits(1)]).expect("finite"); 4];
        assert_eq!(tiny.into_iter().fold(NormPartial::default(), NormPartial::merge).norm(), Ok(T::from_bits(2)));
    }
);

case!(
    pytorch_99640_unscaled_gradients_overflow,
    fn check<T: Float>() {
        for len in LENS {
            let mut g = vec![T::one(); len];
            g[len / 2] = -T::max_value();
            let old = g.clone();
            let found = report(unscale(&mut [&mut g], num(0.5)));
            assert_eq!((found.index, found.class), (Index::Tensor(0, len / 2), Class::NegInf));
            assert_eq!((found.origin, found.counts.total()), (Origin::Overflow, 1));
            assert_same("nothing is written", &g, &old);
            unscale(&mut [&mut g], num(2.0)).expect("finite");
            assert_eq!(g[len / 2], -T::max_value() / num(2.0));
        }
    }
);

case!(
    pytorch_98828_loss_scale_grows_to_infinity,
    fn check<T: Float>() {
        let mut loss_scale = DynamicLossScale::<T> { interval: 1, ..DynamicLossScale::default() };
        let outcome = unscale(&mut [&mut [T::min_positive_value()]], loss_scale.scale);
        for _ in 0..3000 {
            assert_eq!(loss_scale.update(&outcome), Ok(LossStep::Take));
        }
        assert_eq!(loss_scale.scale, loss_scale.largest);
    }
);

case!(
    tensorflow_2288_epsilon_that_underflows,
    fn check<T: Float>() {
        let (mut w, mut m, mut v) = ([T::one()], [T::zero()], [T::zero()]);
        for eps in [T::zero(), T::from_bits(1), T::min_positive_value() / num(2.0)] {
            let adamw = AdamW { eps, ..AdamW::default() };
            assert!(matches!(
                adamw.step(1, &mut w, &[T::zero()], &mut m, &mut v),
                Err(Error::Argument { argument: "eps", .. })
            ));
        }
        AdamW::default().step(1, &mut w, &[T::zero()], &mut m, &mut v).expect("no 0 / 0");
        Adam::default().step(1, &mut w, &[T::zero()], &mut m, &mut v).expect("no 0 / 0");
        assert!(w[0] < T::one() && w[0] > num(0.999));
    }
);

case!(
    burn_5609_relu_and_clamp_of_nan,
    fn check<T: Float>() {
        for x in LENS.into_iter().flat_map(|len| placed::<T>(len, -1.0, &[f64::NAN])) {
            let (len, at) = (x.len(), x.iter().position(|x| x.is_nan()).expect("it is there"));
            let mut y = vec![T::zero(); len];
            let want = x.iter().map(|&x| if x.is_nan() { x } else { T::zero() }).collect::<Vec<_>>();
            assert_eq!(report(relu(&x, &mut y)).index, Index::At(at));
            assert_same("relu", &y, &want);
            assert_eq!(report(relu_backward(&x, &vec![T::one(); len], &mut y)).index, Index::At(at));
            assert_same("its gradient", &y, &want);
            let mut clamped = x.clone();
            assert_eq!(report(clip_by_value(&mut clamped, num(0.5))).index, Index::At(at));
            assert_same("clamp leaves all as it was", &clamped, &x);
            assert_eq!(report(clip_by_value_backward(&x, num(0.5), &vec![T::one(); len], &mut y)).index, Index::At(at));
            assert_same("its gradient", &y, &want);
        }
    }
);

case!(
    tensorflow_59046_gradient_of_a_nan_is_no_zero,
    fn check<T: Float>() {
        let mut dx = [T::zero(); 2];
        report(tanh_backward(&[T::nan(), T::one()], &[T::one(); 2], &mut dx));
        assert!(dx[0].is_nan() && dx[1].is_finite());
    }
);

case!(
    numpy_17761_lanes_past_the_end_raise_nothing,
    fn check<T: Float>() {
        for len in 0..100 {
            let (x, mut y) = (vec![T::one(); len], vec![T::nan(); len]);
            tanh(&x, &mut y).expect("finite");
            relu(&x, &mut y).expect("finite");
            safe_div(&x, &x, &mut y).expect("finite");
            softmax(mat(&x, 1, len), mat_mut(&mut y, 1, len)).expect("finite");
            log_softmax(mat(&x, 1, len), mat_mut(&mut y, 1, len)).expect("finite");
        }
    }
);

case!(
    numpy_22772_nan_in_is_not_born_here,
    fn check<T: Float>() {
        let mut y = [T::zero(); 3];
        let found = report(tanh(&nums::<T>(&[0.0, f64::NAN, 1.0]), &mut y));
        assert_eq!((found.operand, found.origin), ("x", Origin::PassedIn));
    }
);

case!(
    lapack_1077_alpha_and_beta_zero,
    fn check<T: Float>() {
        for (m, k, n) in [(1, 1, 1), (5, 3, 17), (14, 600, 70)] {
            let (a, b) = (vec![T::nan(); m * k], vec![T::infinity(); k * n]);
            let mut c = vec![num::<T>(2.0); m * n];
            let options = Matmul { alpha: T::zero(), beta: num(3.0) };
            matmul_with(options, mat(&a, m, k), mat(&b, k, n), mat_mut(&mut c, m, n)).expect("A and B are not read");
            assert_same("alpha", &c, &vec![num(6.0); m * n]);
            let (a, b) = (vec![T::one(); m * k], vec![T::one(); k * n]);
            c.fill(T::nan());
            matmul_with(Matmul::default(), mat(&a, m, k), mat(&b, k, n), mat_mut(&mut c, m, n)).expect("C is not read");
            assert_same("beta", &c, &vec![num(k as f64); m * n]);
        }
    }
);

case!(
    rten_81_old_values_on_edge_tiles,
    fn check<T: Float>() {
        for n in 1..70 {
            for m in [1, 2, 3, 5, 13] {
                let mut c = vec![T::nan(); m * n];
                let (a, b) = (vec![T::one(); m * 2], vec![T::one(); 2 * n]);
                matmul_with(Matmul::default(), mat(&a, m, 2), mat(&b, 2, n), mat_mut(&mut c, m, n))
                    .expect("C is not read");
                assert_same(format_args!("{m} x {n}"), &c, &vec![num(2.0); m * n]);
            }
        }
    }
);

type Forward<T> = fn(Safe<T>, &[T], &mut [T]) -> nanproof::Result<usize>;
type Backward<T> = fn(Safe<T>, &[T], &[T], &mut [T]) -> nanproof::Result<usize>;

case!(
    jax_347_gradient_of_a_branch_not_taken,
    fn check<T: Float>() {
        let functions: [(Forward<T>, Backward<T>); 4] = [
            (safe_sqrt, safe_sqrt_backward),
            (safe_recip, safe_recip_backward),
            (safe_rsqrt, safe_rsqrt_backward),
            (safe_ln, safe_ln_backward),
        ];
        for len in LENS {
            let (x, dy, mut y) = (vec![T::zero(); len], vec![T::one(); len], vec![T::nan(); len]);
            for (forward, backward) in functions {
                assert_eq!(forward(Safe::default(), &x, &mut y), Ok(len));
                assert_same("value", &y, &x);
                assert_eq!(backward(Safe::default(), &x, &dy, &mut y), Ok(len));
                assert_same("gradient", &y, &x);
            }
        }
    }
);

case!(
    pytorch_187297_square_root_of_a_negative_number,
    fn check<T: Float>() {
        let (x, mut y) = (nums::<T>(&[-1.0, -4.0, -INF, 4.0]), [T::nan(); 4]);
        assert_eq!(safe_sqrt(Safe { default: num(7.0), eps: T::zero() }, &x, &mut y), Ok(3));
        assert_same("value", &y, &nums::<T>(&[7.0, 7.0, 7.0, 2.0]));
        assert_eq!(safe_sqrt_backward(Safe::default(), &x, &nums::<T>(&[f64::NAN, 1.0, 1.0, 1.0]), &mut y), Ok(3));
        assert_same("gradient", &y, &nums::<T>(&[0.0, 0.0, 0.0, 0.25]));
    }
);

fn power_gradients<T: Float>(x: f64, y: f64, g: f64) -> [T; 2] {
    let (mut dx, mut dy) = ([T::nan()], [T::nan()]);
    let _ = safe_pow_backward(Safe::default(), &[num(x)], &[num(y)], &[num(g)], &mut dx, &mut dy);
    [dx[0], dy[0]]
}

case!(
    pytorch_27134_gradient_of_a_power_by_its_exponent_at_zero,
    fn check<T: Float>() {
        for y in [0.0, 0.5, 1.0, 2.0] {
            assert!(power_gradients::<T>(0.0, y, 1.0)[1].is_zero());
        }
    }
);

case!(
    tensorflow_2295_gradient_of_a_power_at_zero,
    fn check<T: Float>() {
        for (y, want) in [(0.0, 0.0), (2.0, 0.0), (1.0, 1.0), (1.5, 0.0), (1.0 / 2.4, INF), (-1.0, 0.0)] {
            assert_same(y, &power_gradients::<T>(0.0, y, 1.0), &nums::<T>(&[want, 0.0]));
            assert_same("nothing comes in", &power_gradients::<T>(0.0, y, 0.0), &[T::zero(); 2]);
        }
        assert_same("the sign of g", &power_gradients::<T>(0.0, 0.5, -2.0), &nums::<T>(&[-INF, 0.0]));
    }
);

case!(
    torch7_60_gradient_of_a_power_from_its_value,
    fn check<T: Float>() {
        assert_same("x = 0", &power_gradients::<T>(0.0, 3.0, 1.0), &[T::zero(); 2]);
        assert_same("x = -2", &power_gradients::<T>(-2.0, 3.0, 1.0), &nums::<T>(&[12.0, 0.0]));
        assert_same("x = -2", &power_gradients::<T>(-2.0, 2.0, 1.0), &nums::<T>(&[-4.0, 0.0]));
    }
);

case!(
    ieee_754_powers,
    fn check<T: Float>() {
        let nan = f64::NAN;
        for (x, y, want) in [
            (nan, 0.0, 1.0),
            (nan, -0.0, 1.0),
            (1.0, nan, 1.0),
            (1.0, INF, 1.0),
            (-1.0, INF, 1.0),
            (-1.0, -INF, 1.0),
            (-1.0, nan, nan),
            (nan, 1.0, nan),
            (0.5, INF, 0.0),
            (0.5, -INF, INF),
            (2.0, INF, INF),
            (2.0, -INF, 0.0),
            (-2.0, INF, INF),
            (INF, 2.0, INF),
            (INF, -2.0, 0.0),
            (-INF, 3.0, -INF),
            (-INF, 2.0, INF),
            (-INF, -3.0, -0.0),
            (-INF, -2.0, 0.0),
            (0.0, 3.0, 0.0),
            (-0.0, 3.0, -0.0),
            (-0.0, 2.0, 0.0),
            (-0.0, 0.5, 0.0),
            (0.0, INF, 0.0),
            (-3.0, 3.0, -27.0),
            (-3.0, 2.0, 9.0),
            (-2.0, 0.5, 0.0),
            (0.0, -1.0, 0.0),
            (0.0, 0.0, 1.0),
            (-1.0, 16_777_215.0, -1.0),
            (-1.0, 16_777_216.0, 1.0),
            (-1.0, 1e30, 1.0),
        ] {
            let mut z = [num::<T>(5.0)];
            let _ = safe_pow(Safe::default(), &[num(x)], &[num(y)], &mut z);
            assert_same(format_args!("{x}^{y}"), &z, &[num(want)]);
        }
    }
);

case!(
    scipy_xlogy_of_zero,
    fn check<T: Float>() {
        for len in LENS {
            let (zero, one) = (vec![T::zero(); len], vec![T::one(); len]);
            let (mut dx, mut dy) = (vec![T::nan(); len], vec![T::nan(); len]);
            for y in nums::<T>(&[0.0, -1.0, 1.0]) {
                assert_eq!(xlogy(&zero, &[y], &mut dx), Ok(len));
                assert_same("value", &dx, &zero);
                assert_eq!(xlog1py(&zero, &[y], &mut dx), Ok(len));
                assert_same("value", &dx, &zero);
                assert_eq!(xlogy_backward(&zero, &vec![y; len], &one, &mut dx, &mut dy), Ok(len));
                assert_same("gradients", &[&dx[..], &dy].concat(), &zero.repeat(2));
            }
        }
        // A pole, and what is no number.
        let found = report(xlogy(&[T::one()], &[T::zero()], &mut [T::nan()]));
        assert_eq!((found.class, found.origin), (Class::NegInf, Origin::DivisionByZero));
        let found = report(xlogy(&[T::one()], &[-T::one()], &mut [T::nan()]));
        assert_eq!((found.class, found.origin), (Class::Nan, Origin::Invalid));
    }
);

/// The options of a predicate mask.
fn masked_by<'a, T: Float>(keep: &'a [bool]) -> Softmax<'a, T> {
    Softmax { mask: Some(MatRef::new(keep, 1, keep.len()).expect("a row")), ..Softmax::default() }
}

case!(
    jax_17117_a_large_logit_behind_the_mask,
    fn check<T: Float>() {
        for len in LENS.into_iter().filter(|&len| len > 2) {
            let (mut x, mut keep) = (vec![num::<T>(1e4); len], vec![false; len]);
            (x[0], x[len - 1]) = (num(1.0), num(1.0));
            (keep[0], keep[len - 1]) = (true, true);
            let (mut y, mut dx) = (vec![T::nan(); len], vec![T::nan(); len]);
            let options = masked_by(&keep);
            assert_eq!(softmax_with(options, mat(&x, 1, len), mat_mut(&mut y, 1, len)), Ok(0));
            let mut want = vec![T::zero(); len];
            (want[0], want[len - 1]) = (num(0.5), num(0.5));
            assert_same(len, &y, &want);
            let nan = vec![T::nan(); len];
            let dy = (0..len).map(|i| if keep[i] { T::one() } else { nan[i] }).collect::<Vec<_>>();
            softmax_backward_with(options, mat(&y, 1, len), mat(&dy, 1, len), mat_mut(&mut dx, 1, len))
                .expect("finite");
            assert_same(len, &dx, &vec![T::zero(); len]);
        }
    }
);

case!(
    jax_23842_log_sum_exp_behind_the_mask,
    fn check<T: Float>() {
        for len in LENS {
            let (mut x, mut keep) = (vec![num::<T>(1e4); len], vec![false; len]);
            (x[len - 1], keep[len - 1]) = (T::zero(), true);
            let (mut y, mut dx) = ([T::nan()], vec![T::nan(); len]);
            logsumexp_with(masked_by(&keep), mat(&x, 1, len), &mut y).expect("finite");
            assert_same(len, &y, &[T::zero()]);
            logsumexp_backward_with(masked_by(&keep), mat(&x, 1, len), &[T::one()], mat_mut(&mut dx, 1, len))
                .expect("finite");
            let mut want = vec![T::zero(); len];
            want[len - 1] = T::one();
            assert_same(len, &dx, &want);
        }
    }
);

case!(
    jax_5370_the_largest_entry_has_weight_zero,
    fn check<T: Float>() {
        for len in LENS.into_iter().filter(|&len| len > 1) {
            let (mut x, mut b) = (vec![T::nan(); len], vec![T::zero(); len]);
            (x[0], x[len - 1]) = (num(-2.0), num(-1000.0));
            b[len - 1] = T::one();
            let (mut y, mut sign, mut dx) = ([T::nan()], [T::nan()], vec![T::nan(); len]);
            logsumexp_weighted(mat(&x, 1, len), mat(&b, 1, len), &mut y, &mut sign).expect("finite");
            assert_same(len, &[y[0], sign[0]], &[num(-1000.0), T::one()]);
            let dx_view = mat_mut(&mut dx, 1, len);
            logsumexp_weighted_backward(mat(&x, 1, len), mat(&b, 1, len), &[T::one()], dx_view).expect("finite");
            assert_same(len, &dx, &b);
        }
    }
);

case!(
    scipy_22903_the_largest_term_is_negative,
    fn check<T: Float>() {
        let x = nums::<T>(&[3.064_094_28, 0.372_518_54, 3.874_719_31]);
        let b = nums::<T>(&[1.881_907_08, 2.841_747_95, -0.850_168_84]);
        let (mut y, mut sign) = ([T::nan()], [T::nan()]);
        logsumexp_weighted(mat(&x, 1, 3), mat(&b, 1, 3), &mut y, &mut sign).expect("finite");
        let want = num::<T>(1.245_216_515_790_738_2);
        assert!((y[0] - want).abs() <= num::<T>(40.0) * T::epsilon(), "{:e} for {want:e}", y[0]);
        assert_eq!(sign, [T::one()]);
        // The inputs rounded to f32 have another sum; what cancels is lost in either type.
        logsumexp_weighted(mat(&x[..2], 1, 2), mat(&nums(&[1.0, -1e9]), 1, 2), &mut y, &mut sign).expect("finite");
        assert_eq!(sign, [-T::one()]);
        let twice = nums::<T>(&[5.0, 5.0]);
        logsumexp_weighted(mat(&twice, 1, 2), mat(&nums(&[1.0, -1.0]), 1, 2), &mut y, &mut sign).expect("zero");
        assert_same("nothing left", &[y[0], sign[0]], &[T::neg_infinity(), T::zero()]);
    }
);

case!(
    llama_cpp_5574_bias_of_a_head_without_slope,
    fn check<T: Float>() {
        // A structural zero is no bias at all: what would be added is not there to be NaN.
        let (x, mut y) = (nums::<T>(&[1.0, 1.0]), [T::nan(); 2]);
        let options = Softmax { bias: None, ..Softmax::default() };
        softmax_with(options, mat(&x, 1, 2), mat_mut(&mut y, 1, 2)).expect("finite");
        assert_same("no bias", &y, &nums(&[0.5, 0.5]));
        // A bias that is there is read, an additive mask is IEEE arithmetic.
        let bias = [T::zero(), T::nan()];
        let options = Softmax { bias: Some(mat(&bias, 1, 2)), ..Softmax::default() };
        let found = report(softmax_with(options, mat(&x, 1, 2), mat_mut(&mut y, 1, 2)));
        assert_eq!((found.operand, found.index), ("bias", Index::Cell(0, 1)));
    }
);

case!(
    pytorch_101967_nan_behind_the_mask,
    fn check<T: Float>() {
        for len in LENS {
            for at in [0, len / 2, len - 1] {
                let (mut x, mut keep) = (vec![T::one(); len], vec![true; len]);
                (x[at], keep[at]) = (T::nan(), false);
                let mut y = vec![T::nan(); len];
                softmax_with(masked_by(&keep), mat(&x, 1, len), mat_mut(&mut y, 1, len)).expect("not read");
                let rest = if len > 1 { T::one() / num((len - 1) as f64) } else { T::zero() };
                assert!(y.iter().enumerate().all(|(i, &y)| if i == at {
                    y.is_zero()
                } else {
                    (y - rest).abs() <= rest * T::epsilon()
                }));
            }
        }
    }
);

case!(
    candle_2561_binary_cross_entropy_of_sure_logits,
    fn check<T: Float>() {
        for len in LENS {
            let x = vec![num::<T>(100.0); len];
            let (one, zero) = (vec![T::one(); len], vec![T::zero(); len]);
            let mut dx = vec![T::nan(); len];
            let loss = |t: &[T]| binary_cross_entropy(Reduction::Mean, &x, t).expect("finite").value;
            assert!(loss(&one) < num(1e-43));
            assert_eq!(loss(&zero), num(100.0));
            binary_cross_entropy_backward(Reduction::Sum, &x, &zero, T::one(), &mut dx).expect("finite");
            assert_same(len, &dx, &one);
            binary_cross_entropy_backward(Reduction::Sum, &x, &one, T::one(), &mut dx).expect("finite");
            assert!(dx.iter().all(|dx| dx.abs() < num(1e-43)));
        }
    }
);

case!(
    pytorch_135359_binary_cross_entropy_at_minus_infinity,
    fn check<T: Float>() {
        let (x, t) = ([T::neg_infinity()], [num::<T>(0.9)]);
        let found = report(binary_cross_entropy(Reduction::Mean, &x, &t));
        assert_eq!((found.operand, found.class), ("logits", Class::NegInf));
        let mut dx = [T::nan()];
        binary_cross_entropy_backward(Reduction::Mean, &x, &t, T::one(), &mut dx).expect("finite");
        assert_same("gradient", &dx, &[num(-0.9)]);
        assert_eq!(binary_cross_entropy::<T>(Reduction::Mean, &[], &[]).expect("empty").value, T::zero());
    }
);

case!(
    optax_1786_divergence_of_impossible_events,
    fn check<T: Float>() {
        let p = nums::<T>(&[0.0, 0.4, 0.6, 0.0]);
        let log_q = [-INF, 0.4_f64.ln(), 0.6_f64.ln(), -INF].map(num::<T>);
        let (mut dp, mut dlog_q) = ([T::nan(); 4], [T::nan(); 4]);
        let value = kl_divergence(&p, &log_q).expect("finite");
        assert!(value.abs() <= num::<T>(2.0) * T::epsilon());
        kl_divergence_backward(&p, &log_q, T::one(), &mut dp, &mut dlog_q).expect("finite");
        assert_same("where p = 0", &[dp[0], dp[3], dlog_q[0], dlog_q[3]], &[T::zero(); 4]);
        assert_same("elsewhere", &dlog_q[1..3], &nums(&[-0.4, -0.6]));
    }
);

case!(
    mindact_1633_smoothing_under_a_mask,
    fn check<T: Float>() {
        for len in LENS.into_iter().filter(|&len| len > 1) {
            let (mut x, mut keep) = (vec![T::neg_infinity(); len], vec![false; len]);
            (x[0], keep[0]) = (T::zero(), true);
            let smooth = CrossEntropy { smoothing: num(0.1), ..CrossEntropy::default() };
            let found = report(cross_entropy(smooth, mat(&x, 1, len), &[0]));
            assert_eq!((found.class, found.origin), (Class::PosInf, Origin::DivisionByZero));
            let mask = Some(MatRef::new(&keep, 1, len).expect("a row"));
            let mut dx = vec![T::nan(); len];
            let options = CrossEntropy { mask, ..smooth };
            let loss = cross_entropy_with_gradient(options, mat(&x, 1, len), &[0], mat_mut(&mut dx, 1, len));
            assert_eq!(loss.expect("finite").value, T::zero());
            assert!(dx.iter().all(|dx| dx.abs() <= T::epsilon()));
        }
    }
);

case!(
    trl_7252_entropy_with_an_impossible_class,
    fn check<T: Float>() {
        for len in LENS {
            for x in placed::<T>(len, -INF, &[0.0]) {
                let (mut h, mut dx) = ([T::nan()], vec![T::nan(); len]);
                softmax_entropy(mat(&x, 1, len), &mut h).expect("finite");
                assert_same(len, &h, &[T::zero()]);
                softmax_entropy_backward(mat(&x, 1, len), &[T::one()], mat_mut(&mut dx, 1, len)).expect("finite");
                assert_same(len, &dx, &vec![T::zero(); len]);
            }
        }
    }
);

case!(
    mlx_4274_the_first_nan_is_the_largest,
    fn check<T: Float>() {
        for len in LENS {
            for x in placed::<T>(len, 3.0, &[f64::NAN]) {
                let (mut y, mut column) = ([T::zero()], [usize::MAX]);
                let at = x.iter().position(|x| x.is_nan()).expect("there is one");
                assert_eq!(report(argmax_rows(mat(&x, 1, len), &mut column)).index, Index::Cell(0, at));
                assert_eq!(column, [at]);
                assert_eq!(report(max_rows(mat(&x, 1, len), &mut y)).class, Class::Nan);
                assert!(y[0].is_nan());
            }
        }
    }
);

case!(
    tinygrad_12296_ties_are_counted_in_integers,
    fn check<T: Float>() {
        let (x, mut dx) = (vec![T::one(); 70_000], vec![T::nan(); 70_000]);
        max_rows_backward(mat(&x, 1, 70_000), &[T::one()], mat_mut(&mut dx, 1, 70_000)).expect("finite");
        assert!(dx.iter().all(|&dx| dx == T::one() / num(70_000.0)));
    }
);

case!(
    pytorch_65599_norms_of_zeros,
    fn check<T: Float>() {
        for len in LENS {
            let (x, mut dx) = (vec![T::zero(); len], vec![T::nan(); len]);
            for p in [0.5, 1.0, 2.0, 3.0, INF].map(num::<T>) {
                assert_eq!(lp_norm(p, &x), Ok(T::zero()));
                lp_norm_backward(p, &x, T::one(), &mut dx).expect("finite");
                assert_same("gradient", &dx, &x);
            }
        }
    }
);

case!(
    tt_metal_55585_gradient_of_norms_with_a_row_of_zeros,
    fn check<T: Float>() {
        let (x, mut dx) = (nums::<T>(&[0.0, 0.0, 0.0, 1.0, 2.0, 2.0]), [T::nan(); 6]);
        lp_norm_rows_backward(num(2.0), mat(&x, 2, 3), &[T::one(); 2], mat_mut(&mut dx, 2, 3)).expect("finite");
        let third = T::one() / num(3.0);
        let zero = T::zero();
        assert_same("gradient", &dx, &[zero, zero, zero, third, num::<T>(2.0) * third, num::<T>(2.0) * third]);
    }
);

case!(
    pytorch_36493_gradient_of_norms_of_small_order_at_zero,
    fn check<T: Float>() {
        let mut dx = [T::nan(); 3];
        lp_norm_backward(num(0.5), &nums::<T>(&[0.0, 4.0, 0.0]), T::one(), &mut dx).expect("finite");
        assert_same("gradient", &dx, &nums::<T>(&[0.0, 1.0, 0.0]));
    }
);

case!(
    pytorch_43211_norm_of_order_3_of_small_numbers,
    fn check<T: Float>() {
        for size in [1e-4, 1e-30] {
            let (x, mut dx) = ([num::<T>(size)], [T::nan()]);
            assert_eq!(lp_norm(num(3.0), &x), Ok(x[0]));
            lp_norm_backward(num(3.0), &x, T::one(), &mut dx).expect("finite");
            assert_same("gradient", &dx, &[T::one()]);
        }
    }
);

case!(
    keras_23075_gradient_of_normalising_zeros,
    fn check<T: Float>() {
        for len in LENS {
            let (x, dy, mut dx) = (vec![T::zero(); len], vec![T::one(); len], vec![T::nan(); len]);
            normalize_backward(T::zero(), mat(&x, 1, len), mat(&dy, 1, len), mat_mut(&mut dx, 1, len)).expect("finite");
            assert_same("without eps", &dx, &x);
            let eps = num::<T>(0.25);
            normalize_backward(eps, mat(&x, 1, len), mat(&dy, 1, len), mat_mut(&mut dx, 1, len)).expect("finite");
            assert_same("with eps", &dx, &vec![num(4.0); len]);
        }
    }
);

case!(
    diffusers_13316_epsilon_that_underflows,
    fn check<T: Float>() {
        let mut y = [T::nan()];
        let eps = T::from_bits(1);
        let result = normalize(eps, mat(&[T::zero()], 1, 1), mat_mut(&mut y, 1, 1));
        assert!(matches!(result, Err(Error::Argument { argument: "eps", .. })));
        normalize(T::zero(), mat(&[T::zero()], 1, 1), mat_mut(&mut y, 1, 1)).expect("finite");
        assert_same("zero", &y, &[T::zero()]);
    }
);

case!(
    pytorch_51912_cosine_similarity_overflows,
    fn check<T: Float>() {
        let scale = T::max_value() / num(3.402_823_5e38);
        let a = [num::<T>(2.0775e38) * scale, num::<T>(3.0262e38) * scale];
        let (mut y, mut da, mut db) = ([T::nan()], [T::nan(); 2], [T::nan(); 2]);
        let ones = [T::one(); 2];
        let (a, b) = (mat(&a, 1, 2), mat(&ones, 1, 2));
        cosine_similarity(a, b, &mut y).expect("finite");
        assert!((y[0] - num(0.98316)).abs() < num(1e-5));
        cosine_similarity_backward(a, b, &[T::one()], mat_mut(&mut da, 1, 2), mat_mut(&mut db, 1, 2)).expect("finite");
        assert!(db.iter().all(|db| !db.is_zero()));
    }
);

case!(
    optax_946_cosine_with_a_zero_vector,
    fn check<T: Float>() {
        for len in LENS {
            let (zero, one, mut y) = (vec![T::zero(); len], vec![T::one(); len], [T::nan()]);
            let (mut da, mut db) = (vec![T::nan(); len], vec![T::nan(); len]);
            let (a, b) = (mat(&zero, 1, len), mat(&one, 1, len));
            cosine_similarity(a, b, &mut y).expect("finite");
            assert_same("value", &y, &[T::zero()]);
            cosine_similarity_backward(a, b, &[T::one()], mat_mut(&mut da, 1, len), mat_mut(&mut db, 1, len))
                .expect("finite");
            assert_same("gradients", &[da, db].concat(), &zero.repeat(2));
        }
    }
);

case!(
    pytorch_94184_variance_of_one_sample,
    fn check<T: Float>() {
        let mut y = [T::nan()];
        let x = [T::one()];
        let unbiased = variance_rows(Variance { ddof: 1 }, mat(&x, 1, 1), &mut y);
        assert!(matches!(unbiased, Err(Error::Argument { argument: "ddof", .. })));
        variance_rows(Variance::default(), mat(&x, 1, 1), &mut y).expect("finite");
        assert_same("of the population", &y, &[T::zero()]);
    }
);

case!(
    tt_metal_55159_normalisation_of_huge_rows,
    fn check<T: Float>() {
        for size in [1e20, 1e25, 3e38, 1e-20, 1e-30].map(num::<T>) {
            for len in [2, 16, 32, 100, 768] {
                let x = [size, -size].repeat(len / 2);
                let (mut y, want) = (vec![T::nan(); x.len()], [T::one(), -T::one()].repeat(len / 2));
                let x_mat = mat(&x, 1, x.len());
                let eps = T::zero();
                rms_norm(RmsNorm { eps }, x_mat, None, mat_mut(&mut y, 1, x.len())).expect("finite");
                assert_same("rms_norm", &y, &want);
                layer_norm(LayerNorm { eps }, x_mat, None, None, mat_mut(&mut y, 1, x.len())).expect("finite");
                assert_same("layer_norm", &y, &want);
                let mut std = [T::nan()];
                std_rows(Variance::default(), x_mat, &mut std).expect("finite");
                assert_same("std", &std, &[size]);
            }
            let (constant, mut y) = (vec![size; 100], vec![T::nan(); 100]);
            layer_norm(LayerNorm::default(), mat(&constant, 1, 100), None, None, mat_mut(&mut y, 1, 100))
                .expect("finite");
            assert_same("equal elements", &y, &[T::zero(); 100]);
        }
    }
);

case!(
    tt_metal_45968_variance_far_from_zero,
    fn check<T: Float>() {
        let x = (0..1000).map(|i| num::<T>(1024.0 + 0.125 * f64::from(i % 2))).collect::<Vec<_>>();
        let (mut variance, mut y) = ([T::nan()], vec![T::nan(); 1000]);
        variance_rows(Variance::default(), mat(&x, 1, 1000), &mut variance).expect("finite");
        assert_same("variance", &variance, &[num(0.0625 * 0.0625)]);
        layer_norm(LayerNorm { eps: T::zero() }, mat(&x, 1, 1000), None, None, mat_mut(&mut y, 1, 1000))
            .expect("finite");
        assert_same("layer_norm", &y, &[-T::one(), T::one()].repeat(500));
    }
);

case!(
    burn_1992_layer_norm_of_zeros,
    fn check<T: Float>() {
        for len in LENS {
            let (zero, dy, mut dx) = (vec![T::zero(); len], vec![T::one(); len], vec![T::nan(); len]);
            let eps = num::<T>(1e-5);
            let (x, dy) = (mat(&zero, 1, len), mat(&dy, 1, len));
            let gradients = LayerNormGradients { dx: mat_mut(&mut dx, 1, len), dw: None, db: None };
            layer_norm_backward(LayerNorm { eps }, x, None, dy, gradients).expect("finite");
            assert!(dx.iter().all(|dx| dx.abs() < num(1e-3)), "the mean of equal gradients is taken off");
            rms_norm_backward(RmsNorm { eps }, x, None, dy, mat_mut(&mut dx, 1, len), None).expect("finite");
            let want = Wide::new(T::one()) / Wide::new(eps).sqrt();
            assert!(dx.iter().all(|&dx| ulp_error(dx, want) <= 1.0), "1 / sqrt(eps)");
        }
    }
);

type ActivationGradient<T> = fn(&[T], &[T], &mut [T]) -> nanproof::Result<()>;

/// An activation and its gradient for `dy = 1`, at one point in vectors of every length.
fn activation_at<T: Float>(
    forward: fn(&[T], &mut [T]) -> nanproof::Result<()>,
    backward: ActivationGradient<T>,
    x: f64,
) -> [T; 2] {
    let mut found = [T::nan(); 2];
    for len in LENS {
        let (mut y, mut dx) = (vec![T::nan(); len], vec![T::nan(); len]);
        let _ = forward(&vec![num(x); len], &mut y);
        backward(&vec![num(x); len], &vec![T::one(); len], &mut dx).expect("finite");
        assert_same("every lane", &[&y[..], &dx].concat(), &[vec![y[0]; len], vec![dx[0]; len]].concat());
        found = [y[0], dx[0]];
    }
    found
}

case!(
    burn_5373_softplus_of_large_numbers,
    fn check<T: Float>() {
        assert_same("100", &activation_at(softplus, softplus_backward, 100.0), &nums::<T>(&[100.0, 1.0]));
        let [y, dx] = activation_at::<T>(softplus, softplus_backward, -1000.0);
        assert_same("MLAlgorithms#31", &[y, dx], &[T::zero(); 2]);
        assert_same("+Inf", &activation_at(softplus, softplus_backward, INF), &nums::<T>(&[INF, 1.0]));
    }
);

case!(
    pytorch_185770_gelu_at_infinity,
    fn check<T: Float>() {
        for (forward, backward) in [
            (gelu as fn(&[T], &mut [T]) -> nanproof::Result<()>, gelu_backward as fn(&[T], &[T], &mut [T]) -> _),
            (gelu_tanh, gelu_tanh_backward),
            (silu, silu_backward), // pytorch#195197
            (mish, mish_backward),
        ] {
            let [y, dx] = activation_at::<T>(forward, backward, -INF);
            assert!(y.is_zero() && dx.is_zero());
            assert_same("+Inf", &activation_at(forward, backward, INF), &nums::<T>(&[INF, 1.0]));
        }
    }
);

case!(
    tt_metal_56517_negative_tail_of_gelu_tanh,
    fn check<T: Float>() {
        let [y, _] = activation_at::<T>(gelu_tanh, gelu_tanh_backward, -6.0);
        let want = reference::gelu_tanh(num::<T>(-6.0));
        assert!(ulp_error(y, want) <= 3.0 && want.to_f64() < -8e-11, "{y:e}");
    }
);

case!(
    jax_40828_gradient_of_silu_far_out,
    fn check<T: Float>() {
        for x in [-80.0, -100.0, -709.0, -740.0] {
            let [_, dx] = activation_at::<T>(silu, silu_backward, x);
            let want = reference::silu_backward(num::<T>(x), T::one());
            assert!(ulp_error(dx, want) <= 8.0, "{x}: {dx:e} for {:e}", want.to_f64());
        }
    }
);

case!(
    ds4_498_silu_of_a_large_negative_gate,
    fn check<T: Float>() {
        for x in [-1e4, -1e30] {
            let [y, dx] = activation_at::<T>(silu, silu_backward, x);
            assert!(y.is_zero() && dx.is_zero(), "{x}: {y:e}, {dx:e}");
        }
    }
);

case!(
    mish_closed_form_overflows,
    fn check<T: Float>() {
        let [y, dx] = activation_at::<T>(mish, mish_backward, 20.0);
        let want = [reference::mish(num::<T>(20.0)), reference::mish_backward(num::<T>(20.0), T::one())];
        assert!(ulp_error(y, want[0]) <= 5.0 && ulp_error(dx, want[1]) <= 3.0, "{y:e}, {dx:e}");
        for x in [40.0, 1000.0, 1e30] {
            assert_same(x, &activation_at(mish, mish_backward, x), &nums::<T>(&[x, 1.0]));
        }
    }
);

case!(
    paddle_14857_gradient_of_gelu_at_zero,
    fn check<T: Float>() {
        for (forward, backward) in [
            (gelu as fn(&[T], &mut [T]) -> nanproof::Result<()>, gelu_backward as fn(&[T], &[T], &mut [T]) -> _),
            (gelu_tanh, gelu_tanh_backward),
        ] {
            assert_same("zero", &activation_at(forward, backward, 0.0), &nums::<T>(&[0.0, 0.5]));
        }
    }
);

/// Of tensors that are stored in 16 bits.
#[cfg(feature = "half")]
mod half_storage {
    use super::common::{mat, mat_mut, on_every_isa};
    use half::{bf16, f16};
    use nanproof::{
        Clipping, NormPartial, Softmax, Storage, TensorMut, clip_by_global_norm_mixed, matmul_mixed, softmax_mixed,
    };

    fn clipped<A: Storage<Compute = f32>>(x: &[f32], max_norm: f32) -> Vec<f32> {
        let mut x = x.iter().map(|&x| A::round(x)).collect::<Vec<_>>();
        clip_by_global_norm_mixed(Clipping::default(), &mut [TensorMut::new(&mut x)], max_norm, None).expect("finite");
        x.into_iter().map(A::widen).collect()
    }

    #[test]
    fn burn_5699_clipping_zeroes_a_finite_gradient() {
        on_every_isa(|_| {
            assert_eq!(clipped::<f16>(&[300.0], 1.0), [1.0]);
            assert_eq!(clipped::<f16>(&[-60_000.0, 0.0, 60_000.0, 0.0], 0.0), [0.0; 4]);
            assert_eq!(clipped::<f16>(&[60_000.0; 4], 2.0), [1.0; 4]);
            assert_eq!(clipped::<bf16>(&[f32::MAX / 2.0; 4], 2.0), [1.0; 4]);
        });
    }

    /// And fairseq#2384, Automodel#825.
    #[test]
    fn fairscale_263_norms_of_shards_in_16_bits() {
        on_every_isa(|_| {
            let shard = [f16::from_f32(5000.0)];
            let partial = NormPartial::of_mixed(&shard).expect("it is available");
            assert_eq!(partial.merge(partial).merge(partial).merge(partial).norm(), Ok(10_000.0));
        });
    }

    /// And mlc-llm#1638: products of queries and keys that `f16` cannot hold.
    #[test]
    fn llama_cpp_15619_scores_above_the_largest_f16() {
        on_every_isa(|_| {
            let (q, k) = ([f16::from_f32(300.0); 128], [f16::from_f32(-300.0); 2 * 128]);
            let (mut scores, mut p) = ([0.0_f32; 2], [f16::ZERO; 2]);
            matmul_mixed(mat(&q, 1, 128), mat(&k, 2, 128).t(), mat_mut(&mut scores, 1, 2)).expect("f32 holds it");
            assert_eq!(scores, [-300.0 * 300.0 * 128.0; 2]);
            softmax_mixed(Softmax::default(), mat(&scores, 1, 2), mat_mut(&mut p, 1, 2)).expect("finite");
            assert_eq!(p, [f16::from_f32(0.5); 2]);
        });
    }
}
