//! What fuzzing found, each with its smallest operands.

use nanproof::reference::{self, Wide, ulp_error};
use nanproof::{
    AdamW, BatchMut, BatchRef, Class, CrossEntropy, Error, GradientFlag, GradientLog, Index, LayerNorm,
    LayerNormGradients, LogSumExp, MatMut, MatRef, Origin, Reduction, RmsNorm, Safe, Softmax, TensorStats, Variance,
    binary_cross_entropy, binary_cross_entropy_backward, clip_unitwise, cosine_similarity_backward,
    cross_entropy_backward, cross_entropy_in_place, cross_entropy_with_gradient, dot_backward, elu, kl_divergence,
    kl_divergence_backward, l2_norm_backward, layer_norm_backward, log_softmax_with, logsumexp, lp_norm,
    lp_norm_backward, lp_norm_rows_backward, matmul_backward, mean_rows, normalize_backward, rms_norm_backward,
    safe_div_backward, safe_pow_backward, softmax, softmax_in_place, std_rows_backward, sum_backward, xlogy_backward,
};

/// The gradients multiply by transposes; a report speaks of the operands as they were passed in.
#[test]
fn matmul_backward_reports_the_cell_of_the_callers_operand() -> nanproof::Result<()> {
    let (mut da, mut db) = ([0.0_f32; 2], [0.0_f32; 6]);
    // B is 2 x 3, with an infinity at row 0, column 2; and A is 1 x 2, with one at column 1.
    let b = [0.0, 1.0, f32::INFINITY, 2.0, 3.0, 4.0];
    for (a, b, operand, index) in
        [([1.0, 2.0], b, "b", Index::Cell(0, 2)), ([1.0, f32::INFINITY], [1.0; 6], "a", Index::Cell(0, 1))]
    {
        let (a, b, dc) = (MatRef::new(&a, 1, 2)?, MatRef::new(&b, 2, 3)?, MatRef::new(&[1.0; 3], 1, 3)?);
        let result = matmul_backward(a, b, dc, MatMut::new(&mut da, 1, 2)?, MatMut::new(&mut db, 2, 3)?);
        let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
        assert_eq!((report.operand, report.index, report.class), (operand, index, Class::PosInf));
    }
    Ok(())
}

/// Without an upstream gradient there is none to pass on, whatever the quotient is.
#[test]
fn safe_div_backward_of_zero_is_zero_through_infinities() -> nanproof::Result<()> {
    const INF: f32 = f32::INFINITY;
    let (mut da, mut db) = ([1.0; 4], [1.0; 4]);
    safe_div_backward(&[-INF, INF, INF, 1.0], &[-INF, INF, 2.0, INF], &[-0.0, 0.0, 0.0, 0.0], &mut da, &mut db)?;
    assert_eq!((da, db), ([0.0; 4], [0.0; 4]));
    Ok(())
}

/// No element of the gradient of a norm is larger than the upstream one, so none overflows.
#[test]
fn l2_norm_backward_of_the_largest_number_is_finite() -> nanproof::Result<()> {
    for i in 1..1000 {
        let x = [1.0 + f64::from(i) / 1024.0, 1e-20];
        let mut dx = [0.0; 2];
        l2_norm_backward(&x, -f64::MAX, &mut dx)?;
        assert!(dx[0] <= f64::MAX * (4.0 * f64::EPSILON - 1.0), "{x:?}: {dx:?}");
    }
    Ok(())
}

/// A loss overflows and the mean does not: in place the loss is that of the other forms, not the sum of what overflowed.
#[test]
fn cross_entropy_in_place_has_a_mean_beside_losses_that_overflow() -> nanproof::Result<()> {
    let x = [f32::MAX, -f32::MAX, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let (options, targets) = (CrossEntropy::default(), [1, 0, 0, 0]);
    let (mut in_place, mut dx) = (x, [0.0; 8]);
    let logits = MatRef::new(&x, 4, 2)?;
    let want = cross_entropy_with_gradient(options, logits, &targets, MatMut::new(&mut dx, 4, 2)?)?;
    assert_eq!(cross_entropy_in_place(options, MatMut::new(&mut in_place, 4, 2)?, &targets)?, want);
    assert_eq!((want.value, in_place), (f32::MAX / 2.0, dx));
    Ok(())
}

/// The error of the exponential may weigh twice as much in the product, whose rounding came on top of it.
#[test]
fn elu_is_within_its_bound_for_any_alpha() -> nanproof::Result<()> {
    let (alpha, x, mut y) = (12.75_f32, [-0.903_177_6], [0.0]);
    elu(alpha, &x, &mut y)?;
    let error = ulp_error(y[0], reference::elu(alpha, x[0]));
    assert!(error <= 1.2, "{error} ULP");
    Ok(())
}

/// The norm overflows, or is that of the only element; the inverse of the order may overflow alone.
#[test]
fn lp_norm_of_a_tiny_order_is_a_number() -> nanproof::Result<()> {
    let Err(Error::NonFinite(report)) = lp_norm(f64::MIN_POSITIVE, &[1.0, 0.5]) else { panic!("it overflows") };
    assert_eq!((report.class, report.origin), (Class::PosInf, Origin::Overflow));
    assert_eq!(lp_norm(5e-324, &[3.0, 0.0])?, 3.0);
    Ok(())
}

/// The root of the sum overflows, and the norm does not as all elements are tiny.
#[test]
fn lp_norm_of_tiny_elements_in_a_small_order() -> nanproof::Result<()> {
    let (order, x) = (8.850_097_656_25e-4, [-f64::MIN_POSITIVE, 6.863_861_937_507_766e-308]);
    let error = ulp_error(lp_norm(order, &x)?, reference::lp_norm(order, &x));
    assert!(error <= 3.0 / order, "{error} ULP");
    let mut dx = [1.0; 2];
    lp_norm_backward(order, &x, 1e-300, &mut dx)?;
    // The norm is homogeneous: `x dx` adds up to `g` times it.
    let share = (x[0] * 1e200).mul_add(dx[0], x[1] * 1e200 * dx[1]) / (lp_norm(order, &x)? * 1e-100);
    assert!((share - 1.0).abs() < 1e-10, "{share}");
    lp_norm_backward(order, &x, 0.0, &mut dx)?;
    assert_eq!(dx, [0.0; 2]);
    Ok(())
}

/// The power of a ratio below all numbers is 0, however large the order.
#[test]
fn lp_norm_beside_an_element_that_does_not_count() -> nanproof::Result<()> {
    for order in [2.5, 6.0, 1e10, 1e300] {
        assert_eq!(lp_norm(order, &[1e300, 1e-300])?, 1e300);
    }
    Ok(())
}

/// The rounding of the mean may be as large as the deviation.
#[test]
fn statistics_of_elements_next_to_each_other() -> nanproof::Result<()> {
    assert_eq!(TensorStats::of(&[1.0, 1.0 + f64::EPSILON])?.std, f64::EPSILON / 2.0);
    assert_eq!(TensorStats::of(&[0.1; 10_000])?.std, 0.0);
    Ok(())
}

/// The sum of the losses overflows and their mean does not.
#[test]
fn binary_cross_entropy_has_a_mean_where_the_sum_overflows() -> nanproof::Result<()> {
    let loss = binary_cross_entropy(Reduction::Mean, &[f32::MAX, -f32::MAX, 0.0, 0.0], &[0.0, 1.0, 0.0, 1.0])?;
    assert_eq!(loss.value, f32::MAX / 2.0);
    assert!(binary_cross_entropy(Reduction::Sum, &[f32::MAX; 2], &[0.0; 2]).is_err());
    Ok(())
}

/// A partial sum overflows and the divergence does not.
#[test]
fn kl_divergence_of_partial_sums_that_overflow() -> nanproof::Result<()> {
    for at in 0..3 {
        let mut log_q = [-f32::MAX; 3];
        log_q[at] = f32::MAX;
        assert_eq!(kl_divergence(&[1.0; 3], &log_q)?, f32::MAX);
    }
    Ok(())
}

/// A power below all numbers is 0, but that does not hide an upstream gradient that is not finite.
#[test]
fn safe_pow_backward_passes_on_a_nan_through_a_power_of_zero() {
    for (x, y) in [(6.5e30_f32, -1.1e38), (0.5, f32::INFINITY), (f32::INFINITY, -2.0)] {
        for g in [f32::NAN, f32::INFINITY] {
            let (mut dx, mut dy) = ([0.0], [0.0]);
            let result = safe_pow_backward(Safe::default(), &[x], &[y], &[g], &mut dx, &mut dy);
            let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}, {dx:?}, {dy:?}") };
            assert_eq!(report.origin, Origin::PassedIn);
            assert!(!dx[0].is_finite() && !dy[0].is_finite());
        }
    }
}

/// A sum over rows overflows on the way, and another result overflows indeed: the sum is right all the same.
#[test]
fn gradients_of_a_row_are_sums_of_their_own() {
    let (mut dx, mut dy) = ([0.0_f32; 6], [0.0; 2]);
    let g = [3e38, 3e38, 3e38, 1.0, -3e38, 1.0];
    let result = xlogy_backward(&[1.0; 6], &[1.0, 1e-30], &g, &mut dx, &mut dy);
    assert!(matches!(result, Err(Error::NonFinite(report)) if report.operand == "dx"));
    assert_eq!(dy[0], 3e38);
}

/// The sum of a column does not depend on whether that of another one overflows on the way.
#[test]
fn gradients_of_columns_do_not_touch_one_another() -> nanproof::Result<()> {
    let (mut dx, mut dy) = ([0.0_f32; 6], [0.0; 2]);
    let tiny = f32::from_bits(1);
    xlogy_backward(&[1.0; 6], &[1.0; 2], &[3e38, tiny, 3e38, tiny, -3e38, tiny], &mut dx, &mut dy)?;
    assert_eq!(dy, [3e38, 3.0 * tiny]);
    Ok(())
}

/// 0 times infinity is no limit, and an infinite floor lies above a norm that overflows.
#[test]
fn clip_unitwise_by_nothing_and_by_infinity() -> nanproof::Result<()> {
    const INF: f32 = f32::INFINITY;
    for (w, clipping, eps, want) in
        [(2.0_f32, 0.0, INF, 0.0), (0.0, INF, 0.0, 1.0), (2.0, INF, INF, 1.0), (3e38, 1e-39, INF, 1.0)]
    {
        let mut g = [1.0, -1.0];
        clip_unitwise(MatRef::new(&[w; 2], 1, 2)?, MatMut::new(&mut g, 1, 2)?, clipping, eps)?;
        assert_eq!(g, [want, -want], "{w}, {clipping}, {eps}");
    }
    Ok(())
}

/// There is no such matrix, wherever it would begin; and none at all in an empty stack, whatever the strides.
#[test]
fn a_stack_has_nothing_past_its_end() -> nanproof::Result<()> {
    BatchRef::with_strides(&[0.0_f32; 6], 0, 37, 6, 6, 4, usize::MAX)?;
    assert!(BatchRef::new(&[0.0_f32; 6], 2, 1, 3)?.get(usize::MAX).is_none());
    assert!(BatchMut::new(&mut [0.0_f32; 6], 2, 1, 3)?.get_mut(usize::MAX).is_none());
    Ok(())
}

/// Nothing is gone through that has no elements, whichever way it is stored.
#[test]
fn columns_that_no_row_has_in_place() -> nanproof::Result<()> {
    softmax_in_place(Softmax::default(), MatMut::<f32>::column_major(&mut [], 0, usize::MAX)?)?;
    Ok(())
}

/// The probability of what did not happen underflows, and its product with the upstream gradient does not.
#[test]
fn binary_cross_entropy_backward_of_a_probability_that_underflows() -> nanproof::Result<()> {
    let (x, t, mut dx) = ([-800.0_f64, 800.0, -720.0], [0.0, 1.0, 0.0], [0.0; 3]);
    binary_cross_entropy_backward(Reduction::Sum, &x, &t, 1e250, &mut dx)?;
    for i in 0..3 {
        let error = ulp_error(dx[i], reference::binary_cross_entropy_backward(x[i], t[i], 1e250));
        assert!(dx[i] != 0.0 && error <= 3.0, "{}: {:e}, {error} ULP", x[i], dx[i]);
    }
    // Beside a target that does so, too: within 3 ULP of the larger of the two, times `g`.
    let (x, t, g) = ([-92.11466_f32, 92.11466], 2.045_181e-39, 2.413_966_1e24);
    let mut dx = [0.0; 2];
    binary_cross_entropy_backward(Reduction::Sum, &x, &[t, 0.0], g, &mut dx)?;
    let error = Wide::new(dx[0]) - reference::binary_cross_entropy_backward(x[0], t, g);
    assert!(error.abs().to_f64() <= 3.0 * f64::from(f32::EPSILON) * f64::from(t) * f64::from(g), "{:e}", dx[0]);
    assert_eq!(dx[1], g);
    Ok(())
}

/// The mean square is finite, and so is its root; what is between them need not be.
#[test]
fn adam_with_a_corrected_mean_square_that_overflows() -> nanproof::Result<()> {
    let (mut w, mut m, mut v) = ([0.0_f32], [1.0], [1.6e38]);
    let adam = AdamW { learning_rate: 1e20, weight_decay: 0.0, beta1: 0.0, ..AdamW::default() };
    adam.step(1, &mut w, &[1.0], &mut m, &mut v)?;
    let want = -1e20 / (1.6e38_f64 * 1000.0 * 0.999).sqrt();
    assert!((f64::from(w[0]) / want - 1.0).abs() < 1e-4, "{w:?} for {want}");
    Ok(())
}

/// A bad loss scale is one whether or not an element takes part in the gradient.
#[test]
fn an_upstream_gradient_that_is_not_finite_is_reported_where_nothing_uses_it() -> nanproof::Result<()> {
    let ignored = CrossEntropy { ignore: Some(0), ..CrossEntropy::default() };
    let x = MatRef::new(&[1.0_f32, 2.0], 1, 2)?;
    for (g, class) in [(f32::NAN, Class::Nan), (f32::NEG_INFINITY, Class::NegInf)] {
        let results = [
            cross_entropy_backward(ignored, x, &[0], g, MatMut::new(&mut [0.0; 2], 1, 2)?),
            binary_cross_entropy_backward(Reduction::Mean, &[], &[], g, &mut []),
            kl_divergence_backward(&[0.0], &[0.0], g, &mut [1.0], &mut [1.0]),
            dot_backward(&[], &[], g, &mut [], &mut []),
            sum_backward(g, &mut []),
            l2_norm_backward(&[0.0], g, &mut [1.0]),
            lp_norm_backward(3.0, &[], g, &mut []),
            lp_norm_backward(2.0, &[0.0], g, &mut [1.0]),
        ];
        for (which, result) in results.into_iter().enumerate() {
            let Err(Error::NonFinite(report)) = result else { panic!("{which}: {result:?} for {g}") };
            assert_eq!((report.operand, report.class, report.origin), ("g", class, Origin::PassedIn), "{which}");
        }
    }
    Ok(())
}

/// The sum of the exponentials was rounded so often that all probabilities of a row were too small.
#[test]
fn softmax_of_a_row_with_many_terms_that_count() -> nanproof::Result<()> {
    let x = [
        3.459_461_569_787_116_7,
        28.993_334_101_626_495,
        19.378_478_417_588_51,
        17.513_884_941_987_353,
        -22.186_445_359_839_627,
        -10.324_704_618_679_04,
        14.301_220_714_465_195,
        0.648_374_874_423_758_3,
        10.528_725_018_724_575,
        24.447_685_534_489_51,
        0.651_529_031_687_305_7,
        9.079_689_417_938_416,
        -28.081_292_944_690_563,
        -8.852_543_247_772_637,
        -14.698_602_079_629_406,
        24.423_150_006_943_06,
        -23.483_203_465_594_286,
        -21.974_417_010_638_525,
        16.669_865_213_567_988,
        -20.336_660_549_439_266,
        4.599_156_714_983_037,
        7.057_144_983_421_065,
        -0.928_067_885_362_102_7,
        -13.893_652_652_949_46,
        -14.367_187_254_754_032,
        19.059_837_189_276_262,
        6.139_275_400_848_07,
        -27.504_838_537_176_756,
        -22.301_664_607_658_63,
        11.904_250_924_483_172,
        17.016_128_843_819_91,
        23.527_220_353_098_14,
        12.816_956_921_517_04,
        4.062_191_085_853_925,
        -14.317_462_578_236_924,
        -28.984_793_914_819_15,
        -12.347_945_983_640_313,
        -13.207_505_076_103_452,
        9.010_884_730_361_113,
        -3.981_398_714_671_187,
        5.083_030_765_225_027,
        -2.841_620_745_484_781,
    ];
    let mut y = [0.0; 42];
    softmax(MatRef::new(&x, 1, 42)?, MatMut::new(&mut y, 1, 42)?)?;
    let errors = y.iter().zip(reference::softmax(&x)).map(|(&y, want)| ulp_error(y, want)).collect::<Vec<_>>();
    assert!(errors.iter().all(|&error| error <= 2.0), "{errors:?}");
    Ok(())
}

/// A mean that is subnormal was rounded to the digits of a normal number first.
#[test]
fn a_subnormal_mean_is_rounded_once() -> nanproof::Result<()> {
    let x = [
        -3.057305805941e-309,
        -8.817303615502148e-308,
        3.8597846250779827e-308,
        -3.442806073918591e-308,
        -8.8413133887427e-309,
        1.155044575222503e-309,
        -5.152058817623675e-308,
    ];
    let mut y = [0.0_f64];
    mean_rows(MatRef::new(&x, 1, 7)?, &mut y)?;
    let error = ulp_error(y[0], reference::mean(&x));
    assert!(error <= 0.5, "{error}");
    Ok(())
}

/// An upstream gradient of exactly 0 gives 0 through the pole of what has no probability.
#[test]
fn kl_divergence_backward_of_nothing_at_the_pole() -> nanproof::Result<()> {
    let (p, log_q) = ([0.5_f32, 1.0, 0.25], [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY]);
    let (mut dp, mut dq) = ([1.0; 3], [1.0; 3]);
    kl_divergence_backward(&p, &log_q, 0.0, &mut dp, &mut dq)?;
    assert_eq!((dp, dq), ([0.0; 3], [0.0; 3]));
    assert!(kl_divergence_backward(&p, &log_q, 1.0, &mut dp, &mut dq).is_err());
    assert_eq!(dp[2], f32::INFINITY);
    Ok(())
}

/// The gradient of a row is summed once more where it is not finite; an upstream gradient that is nearly 0 stays one.
#[test]
fn safe_div_backward_by_a_row_keeps_a_nan() {
    let (a, b, g) = ([1.0, f64::INFINITY], [f64::INFINITY], [0.0, f64::from_bits(1)]);
    let (mut da, mut db) = ([0.0; 2], [0.0_f64]);
    assert!(safe_div_backward(&a, &b, &g, &mut da, &mut db).is_err());
    assert!(db[0].is_nan());
}

/// A NaN among the logits is passed in also where the target is 0.
#[test]
fn binary_cross_entropy_names_the_logit_that_is_nan() {
    for target in [0.0, 0.5, 1.0] {
        let result = binary_cross_entropy(Reduction::Sum, &[1.0, f32::NAN], &[0.5, target]);
        let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
        assert_eq!((report.operand, report.index, report.origin), ("logits", Index::At(1), Origin::PassedIn));
    }
}

/// An infinite logit is no fault: a target beside it may be one.
#[test]
fn binary_cross_entropy_names_the_target_that_is_nan() {
    for logit in [f32::NEG_INFINITY, f32::INFINITY] {
        for target in [f32::NAN, f32::INFINITY] {
            let result = binary_cross_entropy(Reduction::Sum, &[1.0, logit], &[0.5, target]);
            let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
            assert_eq!((report.operand, report.index, report.origin), ("targets", Index::At(1), Origin::PassedIn));
        }
    }
}

/// No probability, no gradient: an upstream gradient of 0 does not hide that at the pole.
#[test]
fn kl_divergence_backward_of_zero_does_not_hide_a_nan() {
    for p in [f32::NAN, -1.0] {
        let (mut dp, mut dq) = ([0.0], [0.0]);
        assert!(kl_divergence_backward(&[p], &[f32::NEG_INFINITY], 0.0, &mut dp, &mut dq).is_err());
        assert!(dp[0].is_nan(), "{p}: {dp:?}");
    }
}

/// The gradient of a loss that is finite may overflow: on the way to numbers that do not, which come out right, or
/// because it is too large, which is reported.
#[test]
fn cross_entropy_backward_does_not_pass_over_an_overflow() -> nanproof::Result<()> {
    const MAX: f32 = f32::MAX;
    let (logits, mut dx) = (MatRef::new(&[0.0, 0.0], 1, 2)?, [9.0; 2]);
    let weighted = |weights, smoothing| CrossEntropy {
        weights: Some(weights),
        smoothing,
        reduction: Reduction::Sum,
        ..CrossEntropy::default()
    };
    cross_entropy_backward(weighted(&[2.0; 2], 0.0), logits, &[0], MAX, MatMut::new(&mut dx, 1, 2)?)?;
    assert_eq!(dx, [-MAX, MAX]);
    cross_entropy_backward(weighted(&[2.0; 2], 0.5), logits, &[0], MAX, MatMut::new(&mut dx, 1, 2)?)?;
    assert_eq!(dx, [-MAX / 2.0, MAX / 2.0]);
    let labels = MatRef::new(&[1e38, 3e38], 1, 2)?;
    cross_entropy_backward(CrossEntropy::default(), logits, labels, 1.0, MatMut::new(&mut dx, 1, 2)?)?;
    assert!((dx[0] - 1e38).abs() < 1e32 && (dx[1] + 1e38).abs() < 1e32, "{dx:?}");
    for smoothing in [0.0, 0.5] {
        let options = weighted(&[4.0; 2], smoothing);
        let result = cross_entropy_backward(options, logits, &[0], 0.75 * MAX, MatMut::new(&mut dx, 1, 2)?);
        assert_eq!(result.is_ok(), smoothing > 0.0, "{dx:?}");
        let result = cross_entropy_backward(options, logits, &[0], MAX, MatMut::new(&mut dx, 1, 2)?);
        assert_eq!(result.is_ok(), smoothing > 0.0, "{dx:?}");
    }
    let result = cross_entropy_backward(weighted(&[4.0; 2], 0.0), logits, &[0], MAX, MatMut::new(&mut dx, 1, 2)?);
    let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
    assert_eq!((report.operand, report.index, report.class), ("dlogits", Index::Cell(0, 0), Class::NegInf));
    assert_eq!(report.origin, Origin::Overflow);
    Ok(())
}

/// What is computed once more is right to the last digits, in long rows as well.
#[test]
fn cross_entropy_backward_with_far_factors_is_that_with_near_ones() -> nanproof::Result<()> {
    let x: Vec<f64> = (0..99).map(|i| f64::from(i * 37 % 50) / -3.0).collect();
    let (mut near, mut far) = ([0.0; 99], [0.0; 99]);
    for smoothing in [0.0, 0.25] {
        let weights = [[1.0; 99], [2.0_f64.powi(600); 99]];
        let options = |i: usize| CrossEntropy {
            weights: Some(&weights[i]),
            smoothing,
            reduction: Reduction::Sum,
            ..CrossEntropy::default()
        };
        let logits = MatRef::new(&x, 1, 99)?;
        cross_entropy_backward(options(0), logits, &[0], 1.0, MatMut::new(&mut near, 1, 99)?)?;
        cross_entropy_backward(options(1), logits, &[0], 2.0_f64.powi(424), MatMut::new(&mut far, 1, 99)?)?;
        for (far, near) in far.iter().zip(near) {
            assert!((far * 2.0_f64.powi(-1000) * 2.0_f64.powi(-24) - near).abs() <= 1e-15 * near.abs(), "{far} {near}");
        }
    }
    Ok(())
}

/// A logit leaves the range downwards: it is no masked one, and the logarithm of its probability may be in range.
#[test]
fn log_softmax_of_a_logit_that_sinks_is_not_that_of_a_masked_one() -> nanproof::Result<()> {
    const MAX: f32 = f32::MAX;
    let far = 2.0_f32.powi(127); // twice as much is out of range
    let mut y = [0.0; 3];
    for (scale, x, want) in [
        (-MAX, [1.0, 2.0, 1.0], [-std::f32::consts::LN_2, -MAX, -std::f32::consts::LN_2]),
        (2.0, [-far * 1.25, -far, -far * 0.5], [-far * 1.5, -far, 0.0]),
        (2.0, [-far * 1.25, f32::NEG_INFINITY, -far * 0.5], [-far * 1.5, f32::NEG_INFINITY, 0.0]),
        (2.0, [0.5, 1.0, -far * 1.25], [-1.3132617, -0.3132617, f32::NEG_INFINITY]),
    ] {
        let options = Softmax { scale, ..Softmax::default() };
        let result = log_softmax_with(options, MatRef::new(&x, 1, 3)?, MatMut::new(&mut y, 1, 3)?);
        assert_eq!(y, want, "{scale} {x:?}");
        assert_eq!(result.is_ok(), x[2] > -far, "{scale} {x:?}: {result:?}");
    }
    let bias = [0.0, -far * 1.5, f32::NEG_INFINITY];
    let options = Softmax { bias: Some(MatRef::new(&bias, 1, 3)?), ..Softmax::default() };
    let x = [-far * 0.75, -far, 1.0];
    log_softmax_with(options, MatRef::new(&x, 1, 3)?, MatMut::new(&mut y, 1, 3)?)?;
    assert_eq!(y, [0.0, -far * 1.75, f32::NEG_INFINITY]);
    let result = log_softmax_with(options, MatRef::new(&[MAX, -MAX, 1.0], 1, 3)?, MatMut::new(&mut y, 1, 3)?);
    let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
    assert_eq!((report.operand, report.index, report.counts.total()), ("y", Index::Cell(0, 1), 1));
    Ok(())
}

/// A row is shorter than what there are machines for: those without a part of it change nothing.
#[test]
fn log_sum_exp_of_pieces_without_entries() -> nanproof::Result<()> {
    let piece = |first: usize, x: &[f32]| -> nanproof::Result<LogSumExp<f32>> {
        let mut piece = LogSumExp::starting_at(first)?;
        piece.push(x)?;
        Ok(piece)
    };
    let whole = piece(0, &[1.0; 5000])?;
    for start in [0, 4096, 8192, 16384] {
        assert_eq!(whole.clone().merge(piece(start, &[])?)?, whole);
        assert_eq!(piece(start, &[])?.merge(whole.clone())?, whole);
    }
    assert!(whole.merge(piece(8192, &[1.0])?).is_err(), "after the end");
    assert!(piece(0, &[1.0; 4096])?.merge(piece(8192, &[1.0])?).is_err(), "a block is missing");
    Ok(())
}

/// Weights that became NaN are flagged; weights far apart are not.
#[test]
fn an_update_to_nan_is_flagged() -> Result<(), nanproof::LogError> {
    let mut log = GradientLog::default();
    let record = log.record_update(1, "w", &[1.0_f32, 2.0, 3.0], &[f32::NAN, 2.0, f32::INFINITY])?;
    assert_eq!(record.flags, [GradientFlag::NotFinite(2)]);
    let record = log.record_update(2, "w", &[f32::MAX, 0.0, 0.0], &[-f32::MAX, 0.0, 0.0])?;
    assert_eq!(record.update_ratio, Some(2.0));
    Ok(())
}

/// Where a row has no derivative its gradient is 0, and its upstream one is not read: it is neither passed on nor reported.
#[test]
fn upstream_gradients_of_what_has_no_derivative_are_not_read() -> nanproof::Result<()> {
    const NAN: f64 = f64::NAN;
    let mut dx = [9.0; 4];
    // The second row has a derivative, and its upstream gradient is what is reported.
    let (x, dy) = ([0.0, 0.0, 1.0, 2.0], [NAN, f64::INFINITY]);
    let (x, dy_rows) = (MatRef::new(&x, 2, 2)?, [NAN, NAN, f64::INFINITY, 1.0]);
    let (flat, dy_rows) = (x.submatrix(0..1, 0..2)?, MatRef::new(&dy_rows, 2, 2)?);
    let ones = MatRef::new(&[1.0; 4], 2, 2)?;
    let (mut da, mut db) = ([9.0; 4], [9.0; 4]);
    let options = Variance::default();
    for p in [0.5, 1.0, 2.0, 3.0, f64::INFINITY] {
        let result = lp_norm_rows_backward(p, x, &dy, MatMut::new(&mut dx, 2, 2)?);
        reports_second_row(result, &dx, Index::At(1));
    }
    std_rows_backward(options, flat, &dy[..1], MatMut::new(&mut dx[..2], 1, 2)?)?;
    let result = std_rows_backward(options, x, &dy, MatMut::new(&mut dx, 2, 2)?);
    reports_second_row(result, &dx, Index::At(1));
    let (da_view, db_view) = (MatMut::new(&mut da, 2, 2)?, MatMut::new(&mut db, 2, 2)?);
    let result = cosine_similarity_backward(x, ones, &dy, da_view, db_view);
    reports_second_row(result, &da, Index::At(1));
    let result = normalize_backward(0.0, x, dy_rows, MatMut::new(&mut dx, 2, 2)?);
    reports_second_row(result, &dx, Index::Cell(1, 0));
    let options = RmsNorm { eps: 0.0 };
    let result = rms_norm_backward(options, x, None, dy_rows, MatMut::new(&mut dx, 2, 2)?, None);
    reports_second_row(result, &dx, Index::Cell(1, 0));
    let options = LayerNorm { eps: 0.0 };
    let gradients = LayerNormGradients { dx: MatMut::new(&mut dx, 2, 2)?, dw: None, db: None };
    let result = layer_norm_backward(options, x, None, dy_rows, gradients);
    reports_second_row(result, &dx, Index::Cell(1, 0));
    // The gradients by weights and biases are sums of upstream gradients, and read them.
    let gradients = LayerNormGradients { dx: MatMut::new(&mut dx, 2, 2)?, dw: None, db: Some(&mut db[..2]) };
    let result = layer_norm_backward(options, x, None, dy_rows, gradients);
    let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
    assert_eq!((report.index, report.counts.nan), (Index::Cell(0, 0), 2));
    Ok(())
}

fn reports_second_row(result: nanproof::Result<()>, dx: &[f64; 4], index: Index) {
    let Err(Error::NonFinite(report)) = result else { panic!("not reported: {result:?}") };
    assert_eq!((report.index, report.class, report.counts.total()), (index, Class::PosInf, 1));
    assert_eq!(dx[..2], [0.0; 2]);
}

/// In long runs the means are hardly corrected; what corrects them was wrong by hundreds of ULP.
#[test]
fn adamw_corrects_its_means_after_many_steps() -> nanproof::Result<()> {
    for (beta2, t) in [(0.999_f32, 1000), (0.999, 100_000), (0.9999, 100_000), (0.99999, 10_000_000)] {
        let adamw = AdamW { learning_rate: 1.0, beta1: 0.0, beta2, eps: 1e-30, weight_decay: 0.0 };
        let (mut w, mut m, mut v) = ([0.0], [0.0], [0.0]);
        adamw.step(t, &mut w, &[1.0], &mut m, &mut v)?;
        let beta2 = f64::from(beta2);
        let corrected = (1.0 - beta2) / -(beta2.ln() * f64::from(t)).exp_m1();
        let ratio = f64::from(w[0]) * corrected.sqrt();
        assert!((ratio + 1.0).abs() < 4.0 * f64::from(f32::EPSILON), "{beta2}^{t}: {ratio}");
    }
    Ok(())
}

/// The logarithm was rounded twice before a negative maximum took half of it.
#[test]
fn logsumexp_of_numbers_below_zero() -> nanproof::Result<()> {
    for x in [[-0.7619344223445648, -0.22034605409057148], [-0.22590956112289523, -0.7548703187474559]] {
        let mut y = [0.0];
        logsumexp(MatRef::new(&x, 1, 2)?, &mut y)?;
        let error = ulp_error(y[0], reference::logsumexp(&x));
        assert!(error <= 2.0, "{x:?}: {error}");
    }
    Ok(())
}

/// A sum that overflows on the way was taken once more with smaller upstream gradients, which lost bits where they are
/// near the smallest numbers.
#[test]
fn small_upstream_gradients_of_large_terms_keep_their_bits() -> nanproof::Result<()> {
    let g: Vec<f64> =
        (0..79).map(|i| if i < 40 { 1.234_567_890_123_456_7e-307 } else { -1.234_567_890_123_456_7e-307 }).collect();
    let (x, y) = ([1e308; 79], [1e-306]);
    let (mut dx, mut one, mut sum) = ([0.0; 79], [0.0], [0.0]);
    xlogy_backward(&x[..1], &y, &g[..1], &mut dx[..1], &mut one)?;
    assert!(one[0] > 1e307);
    xlogy_backward(&x, &y, &g, &mut dx, &mut sum)?;
    assert_eq!(sum, one);
    Ok(())
}

/// A subnormal upstream gradient was taken as a factor with an exponent of its own, and the product rounded twice.
#[test]
fn products_with_a_subnormal_number_are_rounded_once() -> nanproof::Result<()> {
    let (mut da, mut db) = ([0.0_f32], [0.0]);
    dot_backward(&[0.118_444_845], &[0.970_588_2], f32::from_bits(553), &mut da, &mut db)?;
    assert_eq!(db, [f32::from_bits(65)]); // 65.4999993
    dot_backward(&[0.118_444_845], &[0.970_588_2], f32::from_bits(119), &mut da, &mut db)?;
    assert_eq!(da, [f32::from_bits(115)]); // 115.4999967
    Ok(())
}

/// Tiny upstream gradients over huge norms were factors that had few digits left.
#[test]
fn tiny_gradients_of_huge_norms() -> nanproof::Result<()> {
    let (wide_x, tiny_g) = ([-1.763_930_3e308, -9.370_663e307, 1.193_739_7e308], f64::from_bits(67_075));
    let x = [-1.763_930_3e38_f32, -9.370_663e37, -2.793_739_7e38];
    for g in (1..3000).map(|i| f32::from_bits(23 * i)) {
        let (x_row, mut dx) = (MatRef::new(&x, 1, 3)?, [0.0; 3]);
        lp_norm_rows_backward(2.0, x_row, &[g], MatMut::new(&mut dx, 1, 3)?)?;
        assert_each_within(2.0, &dx, reference::l2_norm_backward(&x, g));
        std_rows_backward(Variance::default(), x_row, &[g], MatMut::new(&mut dx, 1, 3)?)?;
        assert_each_within(1.5, &dx, reference::std_backward(&x, 0, g));
    }
    let (x_row, mut dx) = (MatRef::new(&wide_x, 1, 3)?, [0.0; 3]);
    std_rows_backward(Variance::default(), x_row, &[tiny_g], MatMut::new(&mut dx, 1, 3)?)?;
    assert_each_within(1.5, &dx, reference::std_backward(&wide_x, 0, tiny_g));
    Ok(())
}

fn assert_each_within<T: nanproof::Float>(bound: f64, got: &[T], want: Vec<Wide>) {
    for (&got, want) in got.iter().zip(want) {
        let error = ulp_error(got, want);
        assert!(error <= bound, "{got:e} for {:e}: {error} ULP", want.to_f64());
    }
}
